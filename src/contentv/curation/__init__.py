"""Curation: from raw footage to clips whose every rejection can be explained."""
