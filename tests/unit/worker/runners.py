"""Model runners over the counting model, with graphs or without.

A CPU has none: here a graph is the function that would be captured, which runs once when it is
recorded and again at each replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from quire.kernels.reference import lookup
from quire.kernels.reference.bitmask import apply_bitmask
from quire.kernels.reference.deliver import deliver
from quire.kernels.reference.fetch import fetch
from quire.sampling.sampler import Sampler
from quire.worker.batch_builder import BatchBuilder
from quire.worker.buckets import GraphSizes, row_buckets
from quire.worker.device_errors import probe_of
from quire.worker.forward_graphs import ForwardGraphs
from quire.worker.grammar_rows import GrammarRows
from quire.worker.graph_batches import GraphBatches
from quire.worker.graph_inputs import GraphInputs
from quire.worker.graph_masks import GraphMasks
from quire.worker.graphs import NoGraphs
from quire.worker.kv_memory import KVMemory
from quire.worker.model_runner import ModelRunner
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.readback import Readbacks
from quire.worker.recorder import Record, Replay
from quire.worker.result_ring import ResultRing
from quire.worker.rows import Rows
from quire.worker.sample_graphs import SampleGraphs
from quire.worker.step_graphs import NoSharing, Sharing, StepGraphs
from quire.worker.step_timeout import StepTimeout
from tests.fakes.reference_choice import ReferenceChoice
from tests.unit.worker.counting_model import VOCAB_SIZE, CountingModel

CPU = torch.device("cpu")
BLOCK_SIZE = 4
NUM_BLOCKS = 80
MAX_ROWS = 6
MAX_LENGTH = 60
MIXED_TOKENS = (4, 16)


def run_twice(run: Replay) -> Replay:
    run()
    return run


@dataclass
class Parts:
    """What runners are made of; tests replace some."""

    model: CountingModel = field(default_factory=CountingModel)
    rows_per_pass: int = 100
    positions_per_pass: int = 100
    has_graphs: bool = False
    record: Record = run_twice
    sharing: Sharing = field(default_factory=NoSharing)

    def __post_init__(self) -> None:
        self.rows = Rows(
            max_rows=MAX_ROWS,
            max_model_len=MAX_LENGTH,
            num_groups=len(self.model.kv_layout.groups),
            block_size=BLOCK_SIZE,
            device=CPU,
        )
        self.kv = KVMemory(
            self.model.kv_layout,
            num_blocks=NUM_BLOCKS,
            block_size=BLOCK_SIZE,
            dtype=torch.float32,
            device=CPU,
        )
        self.grammars = GrammarRows(
            max_rows=MAX_ROWS, vocab_size=VOCAB_SIZE, timeout=StepTimeout(0)
        )
        self.sampler = Sampler(
            max_rows=MAX_ROWS,
            vocab_size=VOCAB_SIZE,
            device=CPU,
            token_ids=self.rows.token_ids,
            make_choice=ReferenceChoice,
            masks=self.grammars,
        )
        self.prompt_logprobs = PromptLogprobs(
            self.model, self.rows, positions_per_pass=self.positions_per_pass
        )

    def runner(self) -> ModelRunner:
        return ModelRunner(
            model=self.model,
            sampler=self.sampler,
            rows=self.rows,
            kv=self.kv,
            builder=BatchBuilder(self.rows, self.kv, max_tokens=100, device=CPU),
            graphs=self.graphs() if self.has_graphs else NoGraphs(),
            prompt_logprobs=self.prompt_logprobs,
            readbacks=Readbacks(CPU, StepTimeout(0)),
            probe=probe_of(CPU),
            rows_per_pass=self.rows_per_pass,
            grammars=self.grammars,
        )

    def graphs(self) -> StepGraphs:
        sizes = GraphSizes(rows=row_buckets(MAX_ROWS), tokens=MIXED_TOKENS)
        hidden = torch.zeros(MAX_ROWS, 2)
        inputs = GraphInputs(
            sizes,
            spare_row=MAX_ROWS,
            max_length=MAX_LENGTH,
            num_slots=4,
            fetch=fetch,
            device=CPU,
        )
        masks = GraphMasks(
            self.grammars,
            max_rows=MAX_ROWS,
            num_slots=4,
            apply_bitmask=apply_bitmask,
            device=CPU,
        )
        results = ResultRing(
            inputs.ring, max_rows=MAX_ROWS, of_rows=self.rows.token_ids, deliver=deliver
        )
        return StepGraphs(
            sizes=sizes,
            inputs=inputs,
            forwards=ForwardGraphs(
                model=self.model,
                batches=GraphBatches(self.rows, self.kv, lookup, max_tokens=sizes.max_tokens),
                inputs=inputs,
                hidden=hidden,
                record=self.record,
            ),
            samples=SampleGraphs(
                model=self.model,
                sampler=self.sampler,
                inputs=inputs,
                results=results,
                hidden=hidden,
                record=self.record,
                masks=masks,
            ),
            results=results,
            hidden=hidden,
            sampler=self.sampler,
            sharing=self.sharing,
            prompt_logprobs=self.prompt_logprobs,
            masks=masks,
        )
