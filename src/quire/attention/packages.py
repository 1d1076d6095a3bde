"""What the optional attention backends import; one of the modules will do. Imports nothing."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "cudnn": ("cudnn",),
    # The package's own name, and that of the wheel `fa3-fwd`.
    "fa3": ("flash_attn_interface", "fa3_fwd_interface"),
    "flashinfer": ("flashinfer",),
}
