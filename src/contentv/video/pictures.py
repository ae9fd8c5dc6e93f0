"""Still pictures of strangers as 8-bit RGB, the right way up."""

import numpy as np
from PIL import Image, ImageOps

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Turn a picture as its Exif data say; the higher 8 of 16 bits of grey are kept."""
    turned = ImageOps.exif_transpose(picture)
    if turned.mode in _DEEP:  # Pillow would show everything above 255 as white
        turned = Image.fromarray(np.asarray(np.asarray(turned).clip(0, 65535) >> 8, np.uint8))
    return turned.convert("RGB")
