"""What the published README promises: `python3 demo.py`, `USE_ASCEND_NPU=1 python3 demo.py`."""

import argparse
import sys

from contentv import ContentVError, generate
from contentv.pipelines.config import GenerateConfig

PROMPTS = {"tiny": "a red circle moves right on a white background"}
VIOLIN = (
    "A young musician sits on a stone wall by the sea and plays the violin at sunset, close shot"
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="generate one video into video.mp4")
    parser.add_argument("--model_id", default="ByteDance/ContentV-8B", help="%(default)s, or tiny")
    model = parser.parse_args().model_id
    prompt = PROMPTS.get(model, VIOLIN)
    try:
        config = GenerateConfig(prompt=prompt, model=model, out="video.mp4", overwrite=True)
        print(generate(config))  # noqa: T201
    except ContentVError as error:
        sys.exit(f"{error} (here and now: python3 demo.py --model_id tiny)")
