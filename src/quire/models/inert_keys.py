"""Keys of config.json that change no family's mathematics, and some that do when they are false.
Data only.
"""

from __future__ import annotations

# With * and ? as in file names. A family adds its own when it calls `HFConfig.check_unread`.
INERT_KEYS: frozenset[str] = frozenset(
    {
        # What the files are and how they were made.
        "_*",
        "architectures",
        "auto_map",
        "custom_pipelines",
        "dtype",
        "is_composition",
        "model_type",
        "tokenizer_class",
        "tokenizer_name",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        # How long a text may be and which tokens are special: read elsewhere.
        "*_token_id",
        "max_position_embeddings",
        "max_seq_len",
        "max_sequence_length",
        "model_max_length",
        "n_ctx",
        "n_positions",
        "seq_length",
        # Training.
        "*_aux_loss_coef",
        "*_dropout",
        "*_dropout_p",
        "*_dropout_prob",
        "*_pdrop",
        "*_z_loss_coef",
        "dropout",
        "gradient_checkpointing",
        "init_*",
        "initializer_*",
        "label_smoothing",
        "layerdrop",
        "router_jitter_noise",
        "tf_legacy_loss",
        "use_gradient_checkpointing",
        "z_loss_weight",
        # How the original code ran.
        "attn_implementation",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pretraining_tp",  # cuts products of matrices into sums: the same result
        "return_dict",
        "torchscript",
        "use_bfloat16",
        "use_cache",
        "use_flash_attn",
        "use_flash_attention",
        "verbose",
        # Other tasks and heads.
        "classifier_*",
        "finetuning_task",
        "id2label",
        "keys_to_ignore_at_inference",
        "label2id",
        "prefix",
        "problem_type",
        "pruned_heads",
        "summary_*",
        "task_specific_params",
        "tie_encoder_decoder",
        # Defaults of generation that older transformers wrote into every config.
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)

# Switches that are on in a decoder where nobody mentions them: false is more than silence.
ON_UNLESS_SAID: frozenset[str] = frozenset(
    {
        "causal",
        "do_layer_norm_before",
        "is_causal",
        "original_rope",
        "post_layer_norm",
        "rmsnorm",
        "rope_interleave",
        "scale_attn_weights",
        "use_gated_activation",
        "use_parallel_block",
        "use_rms_norm",
        "use_rope",
        "use_rotary",
    }
)
