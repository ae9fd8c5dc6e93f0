"""What makes sampling faster: exactly, by leaving work out, and on several devices."""
