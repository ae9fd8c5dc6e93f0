"""Seam of rapidocr: where text stands in a picture. It finds text, it does not read it."""

from pathlib import Path
from typing import TYPE_CHECKING

from contentv.base.errors import ModelFilesError, UserError
from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Box, Picture

if TYPE_CHECKING:
    from rapidocr import RapidOCR

MODEL = "PP-OCRv6_det_small.onnx"
"""The network that comes with rapidocr; another one would give other scores."""
_STRIDE = 32  # pixels: the network wants sides that this divides


class TextDetector:
    """Finds text with a DB network (PP-OCRv6, small), on one thread of the CPU.

    Pictures are shrunk until their long side is `limit_side` pixels; boxes that the network is
    less sure of than `min_score` are left out. Never downloads anything: ModelFilesError when the
    network is not where rapidocr brings it, UserError when rapidocr is not installed.
    """

    def __init__(self, *, limit_side: int, min_score: float) -> None:
        self._cv2, self._limit_side = opencv(), limit_side
        self._detector = _loaded(limit_side, min_score)

    def __call__(self, picture: Picture) -> list[Box]:
        """Give the upright rectangle around each text in ``[h w 3]`` RGB, from top to bottom."""
        size = _working_size(picture.shape[1], picture.shape[0], self._limit_side)
        small = self._cv2.resize(picture, size, interpolation=self._cv2.INTER_AREA)
        found = self._detector(small[..., ::-1].copy())  # it wants BGR
        boxes = []
        for corners in () if found.boxes is None else found.boxes:
            left, top = (corners.min(axis=0) / size).tolist()
            right, bottom = (corners.max(axis=0) / size).tolist()
            boxes.append(Box(left, top, right - left, bottom - top))
        return boxes


def _working_size(width: int, height: int, limit: int) -> tuple[int, int]:
    """Width and height as the network sees them: nearly the picture's shape, never enlarged."""
    scale = min(1.0, limit / max(width, height)) / _STRIDE
    return max(1, round(width * scale)) * _STRIDE, max(1, round(height * scale)) * _STRIDE


def _loaded(limit_side: int, min_score: float) -> "RapidOCR":
    try:
        import rapidocr
    except ImportError as error:
        raise UserError("text in frames: needs pip install 'contentv[curate]'") from error
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # nothing is sent anywhere
    model = Path(rapidocr.__file__).parent / "models" / MODEL
    if not model.is_file():
        raise ModelFilesError(f"{model}: is missing; use rapidocr 3.10, which brings it")
    return rapidocr.RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Global.use_preprocess_img": False,
            "Global.log_level": "critical",
            "Det.model_path": str(model),
            "Det.limit_type": "max",
            "Det.limit_side_len": limit_side + _STRIDE,  # it is done already
            "Det.box_thresh": min_score,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
