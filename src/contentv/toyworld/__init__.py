"""A procedural world of short captioned videos whose every prompted fact can be read back from pixels."""
