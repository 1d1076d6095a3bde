"""The modules that optional attention backends import, any one of them. Imports nothing itself."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "cudnn": ("cudnn",),
    # The package's own name, and that of the wheel `fa3-fwd`.
    "fa3": ("flash_attn_interface", "fa3_fwd_interface"),
    "flashinfer": ("flashinfer",),
}
