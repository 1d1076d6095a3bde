"""Offline inference with quantized weights and default parameters. MODEL is a folder."""

import sys

from vllm import LLM

prompts = ["Hello, my name is", "The capital of France is"]
llm = LLM(
    model=sys.argv[1],
    trust_remote_code=True,
    quantization="gptq",
    gpu_memory_utilization=0.5,
)
outputs = llm.generate(prompts)
