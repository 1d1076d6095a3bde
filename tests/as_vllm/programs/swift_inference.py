"""Inference, streams and history as the framework SWIFT does them over an engine of vLLM."""

import asyncio
import inspect
import json
import os
import sys
import time
from contextlib import suppress
from copy import deepcopy

import vllm
from packaging import version
from transformers import PreTrainedTokenizerBase
from vllm import AsyncEngineArgs, AsyncLLMEngine, EngineArgs, LLMEngine, SamplingParams

with suppress(ImportError):
    from vllm.lora.request import LoRARequest

os.environ["VLLM_USE_MODELSCOPE"] = "True"


class GenerationConfig(SamplingParams):
    """Their names for limits of the output, over those of the engine."""

    def __init__(self, max_new_tokens=None, repetition_penalty=1.0, num_beams=1, **kwargs):
        parameters = inspect.signature(SamplingParams.__init__).parameters
        assert "max_tokens" in parameters and "length_penalty" in parameters
        if num_beams > 1:
            kwargs.update(use_beam_search=True, best_of=num_beams)
        kwargs["repetition_penalty"] = repetition_penalty
        kwargs["max_tokens"] = max_new_tokens
        super().__init__(**kwargs)

    def __setattr__(self, key, value):
        super().__setattr__("max_tokens" if key == "max_new_tokens" else key, value)

    @property
    def max_new_tokens(self):
        return self.max_tokens


def get_engine(model_dir, use_async=False):
    with suppress(ImportError):
        from vllm.model_executor.parallel_utils.parallel_state import destroy_model_parallel

        destroy_model_parallel()
    args_class, engine_class = EngineArgs, LLMEngine
    if use_async:
        args_class, engine_class = AsyncEngineArgs, AsyncLLMEngine
    parameters = inspect.signature(args_class.__init__).parameters
    options = {"disable_log_requests": True} if "disable_log_requests" in parameters else {}
    for name in ("enable_lora", "max_loras", "max_lora_rank", "limit_mm_per_prompt"):
        assert name in parameters, name
    engine_args = args_class(
        model=model_dir,
        revision="v1.1.8",
        dtype="float32",
        trust_remote_code=True,
        gpu_memory_utilization=0.9,
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        max_num_seqs=8,
        max_model_len=None,
        disable_custom_all_reduce=True,
        enforce_eager=False,
        disable_log_stats=True,
        **options,
    )
    llm_engine = engine_class.from_engine_args(engine_args)
    inner = llm_engine.engine if use_async else llm_engine
    llm_engine.engine_args = engine_args
    llm_engine.model_dir = model_dir
    llm_engine.model_type = "qwen-7b-chat"
    llm_engine.is_multimodal = False
    llm_engine.model_config = inner.model_config
    llm_engine.dtype = inner.model_config.dtype
    llm_engine.max_model_len = inner.model_config.max_model_len
    assert inner.model_config.hf_config.model_type == "qwen"
    assert version.parse(vllm.__version__) >= version.parse("0.4.3")
    assert isinstance(inner.tokenizer.tokenizer, PreTrainedTokenizerBase)
    inner.tokenizer.tokenizer = tokenizer = inner.tokenizer.tokenizer
    llm_engine.hf_tokenizer = tokenizer
    llm_engine.generation_config = GenerationConfig(max_new_tokens=64, temperature=0.0)
    return llm_engine


def prepare(llm_engine, request):
    """Token ids of a chat in the model's format, and the parameters of this one request."""
    tokenizer = llm_engine.hf_tokenizer
    config = deepcopy(llm_engine.generation_config)
    if tokenizer.eos_token not in (config.stop or []):
        config.stop = [*(config.stop or []), tokenizer.eos_token]
    turns = [*request.get("history", []), (request["query"], None)]
    text = "".join(f"user\n{query}\nassistant\n{answer or ''}\n" for query, answer in turns)
    return tokenizer(text.rstrip("\n") + "\n")["input_ids"], config


def inference_stream(llm_engine, request_list, generation_info):
    started = time.perf_counter()
    for i, request in enumerate(request_list):
        input_ids, config = prepare(llm_engine, request)
        if i % 2:  # its older form
            llm_engine.add_request(str(i), None, config, input_ids)
        else:
            prompt = {"prompt_token_ids": input_ids, "multi_modal_data": None}
            llm_engine.add_request(str(i), prompt, config, lora_request=None)
    resp_list = [{"response": "", "history": []} for _ in request_list]
    num_generated = 0
    while llm_engine.has_unfinished_requests():
        for output in llm_engine.step():
            completion = output.outputs[0]
            request = request_list[int(output.request_id)]
            resp = resp_list[int(output.request_id)]
            resp["response"] = completion.text
            resp["history"] = [*request.get("history", []), (request["query"], completion.text)]
            if output.finished:
                assert completion.finish_reason in ("stop", "length"), completion
                num_generated += len(completion.token_ids)
        yield deepcopy(resp_list)
    runtime = time.perf_counter() - started
    generation_info.update(
        num_generated_tokens=num_generated, num_samples=len(request_list), runtime=runtime
    )


def inference(llm_engine, request_list, generation_info):
    *_, resp_list = inference_stream(llm_engine, request_list, generation_info)
    return resp_list


async def inference_async(llm_engine, request_list):
    async def one(i, request):
        input_ids, config = prepare(llm_engine, request)
        inputs = {"prompt_token_ids": input_ids}
        async for output in llm_engine.generate(inputs, config, f"request-{i}"):
            text = output.outputs[0].text
        return text

    return await asyncio.gather(*(one(i, request) for i, request in enumerate(request_list)))


def main():
    llm_engine = get_engine("qwen/Qwen-7B-Chat")
    llm_engine.generation_config.max_new_tokens = 12
    generation_info = {}
    queries = [{"query": "hello"}, {"query": "The capital of France"}, {"query": "numbers 123"}]
    resp_list = inference(llm_engine, queries, generation_info)

    history = resp_list[1]["history"]
    follow_up = [{"query": "and what else?", "history": history}]
    print_idx, pieces = 0, []
    for streamed in inference_stream(llm_engine, follow_up, generation_info):
        response = streamed[0]["response"]
        pieces.append(response[print_idx:])
        print_idx = len(response)

    llm_engine.add_request("left", "never finished", llm_engine.generation_config)
    llm_engine.abort_request("left")
    assert not llm_engine.has_unfinished_requests()

    async_engine = get_engine("qwen/Qwen-7B-Chat", use_async=True)
    async_engine.generation_config.max_new_tokens = 12
    print(
        json.dumps(
            {
                "responses": [resp["response"] for resp in resp_list],
                "async": asyncio.run(inference_async(async_engine, queries)),
                "pieces": pieces,
                "history": streamed[0]["history"],
                "info": generation_info,
                "max_model_len": llm_engine.max_model_len,
                "adapter": LoRARequest("one", 1, "/nowhere").lora_name,
            }
        )
    )


if __name__ == "__main__":
    main()
    sys.exit(0)
