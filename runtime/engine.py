"""The engine: requests in, a step at a time, outputs out. It owns no policy and no arithmetic."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Tokens

import torch

from runtime.batch import ScheduledBatch
from runtime.beam_state import BeamState
from runtime.calibration import add_preemption_cost
from runtime.checkpoint import OnRead
from runtime.config import EngineConfig
from runtime.engine_plan import plan_engine
from runtime.errors import InvalidParameterError, ModelOutputError
from runtime.explain import explain, lines
from runtime.graphs import default_capture_sizes, make_graph_device
from runtime.kv_cache import KVCache
from runtime.loader import load_model
from runtime.model_runner import Model, ModelRunner, StepInFlight
from runtime.ops.base import OperationSet
from runtime.outputs import RequestOutput
from runtime.request_guard import RequestGuard
from runtime.request_state import RequestState
from runtime.sampler import Sampled, Sampler
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.scheduler import Scheduler
from runtime.sequence import FinishReason, Request
from runtime.step_inputs import StepInputs
from runtime.tokenizer import Tokenizer

_log = logging.getLogger("runtime.engine")


class LLMEngine:
    """Serves requests by continuous batching; for one thread.

    engine.add_request("a", "Once upon a time", SamplingParams(max_tokens=20))
    while engine.has_unfinished:
        for output in engine.step():
            ...
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        model: Model | None = None,
        ops: OperationSet | None = None,
        on_read: OnRead | None = None,
    ) -> None:
        """Load the model and allocate the KV cache.

        Args:
            config: how to set it up.
            model: one already in memory, of the same folder, dtype, operations and length.
            ops: the operations that `model` runs on.
            on_read: told bytes of weights read so far, and in all.

        Raises:
            ModelError: the model's folder cannot be served.
            InvalidParameterError: a limit is off.
            DeviceError: the operations cannot run here.
        """
        self.config = config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.plan = plan = plan_engine(config, ops=ops)
        self.model_config = sizes = plan.model
        for line in lines(explain(plan)):
            _log.info("%s", line)
        limits = plan.limits
        self.tokenizer = None if config.skip_tokenizer else Tokenizer.load(config.text_folder)
        if model is None:
            model = load_model(
                config.model,
                sizes,
                plan.ops,
                plan.dtype,
                plan.device,
                limits.max_model_len,
                on_read,
                dummy_seed=config.seed if config.load_format == "dummy" else None,
            )
        cache = KVCache(
            sizes.num_layers,
            limits.num_blocks,
            limits.num_host_blocks,
            limits.block_size,
            sizes.num_kv_heads,
            sizes.head_dim,
            plan.dtype,
            plan.device,
            config.kv_cache_dtype,
        )
        plan.ops.start(cache)
        # transformers' code may read values back in a step, which no graph can hold.
        may_capture = plan.ops.can_capture and not config.enforce_eager and sizes.impl == "native"
        self.runner = ModelRunner(
            model,
            cache,
            Sampler(config.seed),
            StepInputs(limits, plan.stream, with_tables=plan.ops.needs_tables),
            graph_device=make_graph_device(plan.device) if may_capture else None,
            capture_sizes=config.cudagraph_capture_sizes
            or default_capture_sizes(limits.max_num_seqs),
        )
        if config.preemption_mode == "auto" and limits.num_host_blocks:
            limits = add_preemption_cost(
                limits,
                self.runner.run,
                cache.bytes_per_block,
                is_asynchronous=plan.stream.is_asynchronous,
            )
        cache.clear_trash()
        self.scheduler = Scheduler(limits)
        self._states: dict[str, RequestState | BeamState] = {}
        self._in_flight: deque[tuple[ScheduledBatch, StepInFlight]] = deque()
        self._guard = RequestGuard()

    @property
    def has_unfinished(self) -> bool:
        """Whether any request has not ended, or a step that was started has not been taken."""
        return self.scheduler.has_unfinished or bool(self._in_flight)

    def add_request(
        self,
        request_id: str,
        prompt: str | Tokens[int],
        params: SamplingParams | BeamSearchParams | None = None,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> None:
        """Queue a request.

        Args:
            request_id: a name that no live request has.
            prompt: text, or token ids.
            params: how to sample, or to search; the sampling defaults if None.
            priority: smaller is sooner, under the priority policy.
            cache_salt: share cached prefixes only with requests of this salt.

        Raises:
            InvalidParameterError: a token id is outside of the vocabulary, or text is given or
                needed without a tokenizer.
            RequestRefusedError: this engine cannot take it, or not now.
        """
        beam_search = params if isinstance(params, BeamSearchParams) else None
        sampling = params if isinstance(params, SamplingParams) else SamplingParams()
        self._check(sampling)
        text = prompt if isinstance(prompt, str) else None
        token_ids = self._encode(prompt) if isinstance(prompt, str) else list(prompt)
        request = Request(
            request_id,
            tuple(token_ids),
            sampling,
            beam_search=beam_search,
            eos_token_ids=self.model_config.eos_token_ids,
            priority=priority,
            cache_salt=cache_salt,
        )
        self._check_vocabulary("prompt_token_ids", max(token_ids))
        sequence = self.scheduler.add_request(request)
        state: RequestState | BeamState
        if beam_search is None:
            state = RequestState(request, sequence, text, self.tokenizer)
        else:
            state = BeamState(request, sequence, text, self.tokenizer)
        self._states[request_id] = state

    def step(self) -> list[RequestOutput]:
        """Move on by one step; returns the requests that it brought forward, each once.

        Where steps are scheduled ahead, a call starts one step and takes the results of the one
        before, so the first call of a busy period returns nothing.

        An error in one request's own work ends that request, and is told in its output.
        """
        batch = self.scheduler.schedule()
        if not batch.is_empty:
            self._in_flight.append((batch, self.runner.launch(batch)))
        most = self.scheduler.config.max_steps_in_flight
        if not self._in_flight or (not batch.is_empty and len(self._in_flight) < most):
            return []
        return self._finish(*self._in_flight.popleft())

    def _finish(self, batch: ScheduledBatch, step: StepInFlight) -> list[RequestOutput]:
        """Take the results of a step; what has ended since it was scheduled is passed over."""
        output = step.collect()
        result = self.scheduler.finish_step(batch, output.sampled.token_ids)
        for scores in output.prompt_logprobs:
            request = scores.sequence.request
            state = self._states.get(request.request_id)
            if isinstance(state, RequestState) and state.request is request:
                with self._guard.of(request.request_id):
                    state.take_prompt_logprobs(scores)
        changed = self._take_samples(batch, output.sampled, set(result.dropped))
        outputs: list[RequestOutput] = []
        for request_id, moved in changed.items():
            if not self._guard.has_failed(request_id):
                with self._guard.of(request_id):
                    outputs.append(moved.output())
        for done in outputs:
            if done.finished:
                del self._states[done.request_id]
        outputs.extend(self._end_failed())
        return outputs

    def _end_failed(self) -> Iterable[RequestOutput]:
        for request_id, error in self._guard.take().items():
            self.scheduler.abort(request_id)
            prompt = self._states.pop(request_id).request.prompt_token_ids
            problem = f"{type(error).__name__}: {error}"
            yield RequestOutput(request_id, None, prompt, None, [], True, 0, problem)

    def _take_samples(
        self, batch: ScheduledBatch, sampled: Sampled, dropped: set[int]
    ) -> Mapping[str, RequestState | BeamState]:
        """Hand the step's tokens to their requests; returns those that moved."""
        changed: dict[str, RequestState | BeamState] = {}
        searches: dict[str, BeamState] = {}
        for row, sequence in enumerate(batch.samples):
            if row in dropped:
                continue
            request_id = sequence.request.request_id
            state = self._states[request_id]
            if isinstance(state, BeamState):
                candidates = sampled.candidates[row]
                assert candidates is not None
                state.take(sequence, candidates)
                searches[request_id] = state
                continue
            changed[request_id] = state
            with self._guard.of(request_id):
                if row in sampled.unsound:
                    raise ModelOutputError(
                        "the model's scores of the next token are not finite numbers: its weights "
                        "overflow in this type, or are damaged"
                    )
                has_stopped = state.take(sequence, sampled.token_ids[row], sampled.logprobs[row])
                if has_stopped and not sequence.is_finished:
                    self.scheduler.finish_sequence(sequence, FinishReason.STOP)
        for request_id, search in searches.items():
            with self._guard.of(request_id):
                if search.advance(self.scheduler):
                    changed[request_id] = search
        return changed

    def abort(self, request_id: str) -> RequestOutput | None:
        """End a request now; returns what it has so far, None if it is not live."""
        state = self._states.pop(request_id, None)
        if state is None:
            return None
        self.scheduler.abort(request_id)
        return state.output(finished=True)

    def _encode(self, prompt: str) -> list[int]:
        if self.tokenizer is None:
            raise InvalidParameterError("prompt", prompt, "token ids, as there is no tokenizer")
        return self.tokenizer.encode(prompt)

    def _check(self, params: SamplingParams) -> None:
        if params.stop and self.tokenizer is None:
            raise InvalidParameterError("stop", params.stop, "empty, as there is no tokenizer")
        if params.stop_token_ids:
            self._check_vocabulary("stop_token_ids", max(params.stop_token_ids))
        if params.logit_bias:
            self._check_vocabulary("logit_bias", max(params.logit_bias))

    def _check_vocabulary(self, field: str, token_id: int) -> None:
        size = self.model_config.vocab_size
        if token_id >= size:
            raise InvalidParameterError(field, token_id, f"below the vocabulary's size, {size}")
