"""Offline inference with a model of ModelScope at a revision; the import comes before the hub."""

import os

from vllm import LLM, SamplingParams

os.environ["VLLM_USE_MODELSCOPE"] = "True"

if __name__ == "__main__":
    llm = LLM(model="qwen/Qwen-7B", revision="v1.1.8", trust_remote_code=True)
    prompts = ["Hello, my name is", "today is a sunny day,", "The capital of France is"]
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95, stop=["<|endoftext|>"])
    outputs = llm.generate(
        prompts,
        sampling_params,
    )
    for output in outputs:
        prompt = output.prompt
        generated_text = output.outputs[0].text
        print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
