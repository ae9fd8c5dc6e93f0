"""A procedural world of captioned videos whose every prompted fact can be read from pixels."""
