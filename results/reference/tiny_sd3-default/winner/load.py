"""Loads tiny_sd3 under the setting that quantlab chose; see README.md beside this file."""
import json
from pathlib import Path
import torch
from diffusers import BitsAndBytesConfig, SD3Transformer2DModel, StableDiffusion3Pipeline
from quantlab.tiny_sd3 import pipeline_folder
from quantlab.models.cpu import bitsandbytes_without_gpu
file = Path(__file__).with_name("quantization_config.json")
config = BitsAndBytesConfig.from_dict(json.loads(file.read_text()))
source = pipeline_folder('tiny_sd3')
with bitsandbytes_without_gpu():  # does nothing where there is a GPU
    transformer = SD3Transformer2DModel.from_pretrained(source, subfolder='transformer', quantization_config=config, dtype=torch.float16)
pipe = StableDiffusion3Pipeline.from_pretrained(source, transformer=transformer, dtype=torch.float16)
pipe = pipe.to("cuda") if torch.cuda.is_available() else pipe
