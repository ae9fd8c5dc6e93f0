"""The steps that score clips: text, overlays, blur, motion, beauty, vectors."""
