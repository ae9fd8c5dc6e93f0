"""OpenCV's seam: every step that needs it gets it here, set to one thread."""

from types import ModuleType

from contentv.base.errors import UserError


def opencv() -> ModuleType:
    """Give the module `cv2`. Its own threads are off: workers are processes, one a core.

    UserError where it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError("OpenCV: needs pip install 'contentv[curate]'") from error
    cv2.setNumThreads(1)
    return cv2
