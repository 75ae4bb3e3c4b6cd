"""The settings that decide, together with the library, every bit of the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierpool.storage.plan import Plan


@dataclass(frozen=True)
class LlamaSettings:
    """What llama.cpp is told. Equal settings give equal logits, whatever is streamed.

    Attributes
    ----------
    extra_buffers : bool
        Whether llama.cpp may hold copies of weights in a layout of its own: faster, with other logits.
    """

    n_ubatch: int
    threads: int
    context: int
    flash_attention: bool
    kv_type: str
    extra_buffers: bool

    @classmethod
    def of_plan(cls, plan: Plan) -> LlamaSettings:
        """Those that a plan fixes."""
        return cls(
            n_ubatch=plan.n_ubatch,
            threads=plan.threads,
            context=plan.context,
            flash_attention=plan.flash_attention,
            kv_type=plan.kv_type,
            extra_buffers=plan.extra_buffers,
        )

    def model_parameters(self, library: Any) -> Any:
        """For loading: the file mapped, and every weight where the processor computes with it."""
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.load_mode = library.LLAMA_LOAD_MODE_MMAP
        parameters.use_extra_bufts = self.extra_buffers
        # A library that can use a GPU would put weights into memory that it shares with it.
        parameters.no_host = not self.extra_buffers
        return parameters

    def context_parameters(self, library: Any) -> Any:
        """For a context of one sequence."""
        kinds = library.LLAMA_FLASH_ATTN_TYPE_DISABLED, library.LLAMA_FLASH_ATTN_TYPE_ENABLED
        kv_type = getattr(library, f"GGML_TYPE_{self.kv_type}")
        parameters = library.llama_context_default_params()
        parameters.n_ctx = self.context
        # One batch is one forward: whatever ends it, all of it is dropped.
        parameters.n_batch = parameters.n_ubatch = min(self.n_ubatch, self.context)
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.flash_attn_type = kinds[self.flash_attention]
        parameters.type_k = parameters.type_v = kv_type
        parameters.offload_kqv = parameters.op_offload = False
        parameters.no_perf = True
        return parameters
