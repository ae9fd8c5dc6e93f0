"""What fits where: parts, their form and place, and the choice among all that saves memory."""
