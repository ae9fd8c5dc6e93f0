"""Scene to pixels: signed distances with a soft edge, over a background with a slow ripple."""

import numpy as np
from numpy.typing import NDArray

from contentv.toyworld.scene import BACKGROUNDS, COLOURS, Body, Scene

RIPPLE_AMPLITUDE = 16.0
RIPPLE_PERIOD = 0.5
OUTLINE = 0.24
HOLE = 0.42
# Outer radii that give the four shapes a like visual weight.
SCALE = {"circle": 1.0, "square": 0.90, "triangle": 1.22, "cross": 1.08}
ARM = 0.42

Array = NDArray[np.float32]


def render(scene: Scene, *, frames: int = 17, size: int = 64) -> NDArray[np.uint8]:
    """Draw a whole clip as uint8 [frames, size, size, 3]; `frames=1` draws its first instant."""
    return render_at(scene, np.linspace(0, 1, frames, dtype=np.float32), size=size)


def render_at(scene: Scene, times: Array, *, size: int = 64) -> NDArray[np.uint8]:
    """Draw the instants `times` [t] in 0..1 as uint8 [t, size, size, 3]."""
    pixels = draw_background(scene, times, size)
    for body in scene.bodies:
        draw_body(pixels, body, border_tone(scene.background), times)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def draw_background(scene: Scene, times: Array, size: int) -> Array:
    """A flat tone with a ripple along x that slides with the camera, float32 [t, size, size, 3]."""
    x = (np.arange(size, dtype=np.float32) + 0.5) / size
    world = x[None, :] - times[:, None] * np.float32(scene.pan)
    ripple = RIPPLE_AMPLITUDE * np.sin(2 * np.pi * world / RIPPLE_PERIOD + scene.ripple_phase)
    tone = np.array(BACKGROUNDS[scene.background], np.float32)
    rows = tone + ripple[:, :, None].astype(np.float32)
    return np.repeat(rows[:, None], size, axis=1)


def draw_body(pixels: Array, body: Body, border: tuple[int, int, int], times: Array) -> None:
    """Blend one object into float32 [t, h, w, 3] in place."""
    size = pixels.shape[1]
    u, v, radius = local_coordinates(body, times, size)
    distance = shape_distance(body.shape, u, v, radius)
    colour = np.array(COLOURS[body.colour], np.float32)
    if body.style == "outlined":
        _blend(pixels, coverage(distance), np.array(border, np.float32))
        distance = distance + radius * np.float32(OUTLINE)
    elif body.style == "hollow":
        distance = np.maximum(distance, radius * np.float32(HOLE) - np.sqrt(u * u + v * v))
    _blend(pixels, coverage(distance), colour)


def border_tone(background: str) -> tuple[int, int, int]:
    """The outline's tone: black on white, white on everything else."""
    return (10, 10, 10) if background == "white" else (252, 252, 252)


def local_coordinates(body: Body, times: Array, size: int) -> tuple[Array, Array, Array]:
    """Pixel centres in the object's turned frame: u, v [t h w] and radius [t 1 1], in pixels."""
    grid = np.arange(size, dtype=np.float32) + 0.5
    x, y, radius, angle = (
        (a + (b - a) * times).astype(np.float32)[:, None, None]
        for a, b in (body.x, body.y, body.radius, body.angle)
    )
    dx = grid[None, None, :] - x * size
    dy = grid[None, :, None] - y * size
    cos, sin = np.cos(angle), np.sin(angle)
    return dx * cos + dy * sin, dy * cos - dx * sin, radius * size


def shape_distance(shape: str, u: Array, v: Array, radius: Array) -> Array:
    """Signed distance in pixels to a shape of visual radius `radius`; negative inside."""
    r = radius * np.float32(SCALE[shape])
    if shape == "circle":
        return np.sqrt(u * u + v * v) - r
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - r
    if shape == "triangle":
        # Equilateral, apex up, centred on its centroid: three half-planes at the inradius.
        half = np.float32(0.5)
        slanted: Array = np.float32(np.sqrt(3) / 2) * u
        return np.maximum(np.maximum(slanted - half * v, -slanted - half * v), v) - half * r
    wide = np.maximum(np.abs(u) - r, np.abs(v) - r * np.float32(ARM))
    tall = np.maximum(np.abs(v) - r, np.abs(u) - r * np.float32(ARM))
    return np.minimum(wide, tall)


def coverage(distance: Array) -> Array:
    """Share of a pixel inside an edge at `distance` pixels, in 0..1."""
    return np.clip(np.float32(0.5) - distance, 0, 1)


def _blend(pixels: Array, alpha: Array, colour: Array) -> None:
    pixels += alpha[..., None] * (colour - pixels)
