"""Tiny pipelines and models of many families, with random weights, made and saved in a second."""

from zoo import (
    audio,
    image,
    image_llm,
    image_more,
    priors,
    text,
    transformers_models,
    unet,
    video,
    video_more,
    video_unet,
)
from zoo.exhibit import EXHIBITS, Exhibit

__all__ = [
    "EXHIBITS",
    "Exhibit",
    "audio",
    "image",
    "image_llm",
    "image_more",
    "priors",
    "text",
    "transformers_models",
    "unet",
    "video",
    "video_more",
    "video_unet",
]
