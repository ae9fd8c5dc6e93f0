"""Geometry of videos and of their latents: arithmetic on types instead of loose `// 8`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoShape:
    """Frames, height and width of a video in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class LatentShape:
    """Frames, height and width of a latent video."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class ScaleFactors:
    """How many pixels one latent position stands for; the first frame is always kept on its own.

    The published causal VAE has `time=4, space=8`: 4k+1 frames become k+1 latent frames.
    """

    time: int = 4
    space: int = 8

    def latent(self, shape: VideoShape) -> LatentShape:
        """Give the latent shape of a video; ValueError when the video does not divide evenly."""
        if (shape.frames - 1) % self.time or shape.height % self.space or shape.width % self.space:
            rule = f"{self.time}k+1 frames, sides divisible by {self.space}"
            raise ValueError(f"{shape}: needs {rule}")
        return LatentShape(
            (shape.frames - 1) // self.time + 1,
            shape.height // self.space,
            shape.width // self.space,
        )

    def pixels(self, latent: LatentShape) -> VideoShape:
        """Give the shape of the video that `latent` decodes to."""
        return VideoShape(
            (latent.frames - 1) * self.time + 1,
            latent.height * self.space,
            latent.width * self.space,
        )


def round_frames(frames: int, time: int = 4) -> int:
    """Round a number of frames down to the nearest one of the form time*k+1; `frames` >= 1."""
    if frames < 1:
        raise ValueError(f"frames={frames}: must be 1 or more")
    return (frames - 1) // time * time + 1
