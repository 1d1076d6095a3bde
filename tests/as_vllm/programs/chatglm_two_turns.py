"""A chat of two turns; the model's own tokenizer makes the token ids that are the prompts."""

import os
from copy import deepcopy

from modelscope import AutoTokenizer
from vllm import LLM, SamplingParams

os.environ["VLLM_USE_MODELSCOPE"] = "True"

MODEL = "ZhipuAI/chatglm3-6b-32k"


def process_response(output, history):
    history = deepcopy(history)
    content = ""
    for response in output.split("<|assistant|>"):
        metadata, _, content = response.partition("\n")
        history.append({"role": "assistant", "metadata": metadata, "content": content.strip()})
    return content, history


def token_ids(tokenizer, prompt, history):
    return tokenizer.build_chat_input(prompt, history)["input_ids"].numpy()[0].tolist()


if __name__ == "__main__":
    llm = LLM(model=MODEL, revision="v1.0.1", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, revision="v1.0.1", trust_remote_code=True)
    sampling_params = SamplingParams(
        temperature=0.8,
        top_p=0.95,
        max_tokens=24,
        stop=[tokenizer.eos_token, "<|user|>", "<|observation|>"],
    )
    prompts = ["Hello, my name is Alia", "Today is a sunny day,"]
    inputs = [token_ids(tokenizer, prompt, []) for prompt in prompts]
    outputs = llm.generate(
        prompt_token_ids=inputs,
        sampling_params=sampling_params,
    )
    histories = []
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.prompt is None
        generated_text = output.outputs[0].text
        print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
        history = [{"role": "user", "content": prompt}]
        generated_text, history = process_response(generated_text, history)
        histories.append(history)

    prompts_new = ["What is my name again?", "What is the weather I just said today?"]
    inputs = [
        token_ids(tokenizer, prompt, history)
        for prompt, history in zip(prompts_new, histories, strict=True)
    ]
    outputs = llm.generate(
        prompt_token_ids=inputs,
        sampling_params=sampling_params,
    )
    for prompt, output in zip(prompts_new, outputs, strict=True):
        print(f"Prompt: {prompt!r}, Generated text: {output.outputs[0].text!r}")
    print("Turns:", [len(history) for history in histories], "Tokens:", [len(i) for i in inputs])
