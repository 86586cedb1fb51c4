"""What a server counts, in the form that Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counts since the server started. Every label has a fixed, small set of values.

    Parameters
    ----------
    risks : tuple of float
        The risk limits that may be asked for.
    """

    def __init__(self, risks: tuple[float, ...]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "quantrust_requests", "Requests by place and status.", ("place", "status"), registry=self.registry
        )
        self.questions = Counter(
            "quantrust_questions", "Questions by risk limit and outcome.", ("risk", "outcome"), registry=self.registry
        )
        self.coverage = Gauge(
            "quantrust_coverage",
            "Share of questions that were answered and not abstained from, by risk limit; NaN before the first.",
            ("risk",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "quantrust_request_seconds",
            "From the head of a question to its reply, in seconds, refused ones left out.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.model_seconds = Histogram(
            "quantrust_batch_seconds", "Model time of a batch, in seconds.", buckets=SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "quantrust_batch_size", "Questions answered together.", buckets=SIZES, registry=self.registry
        )
        self.in_hand = Gauge(
            "quantrust_questions_in_hand", "Questions that arrive, wait or are answered.", registry=self.registry
        )
        self.prompt_tokens = Counter("quantrust_prompt_tokens", "Tokens of prompts.", registry=self.registry)
        self.completion_tokens = Counter("quantrust_completion_tokens", "Tokens of answers.", registry=self.registry)
        self._answered = {risk: [0, 0] for risk in risks}
        for risk in risks:
            self.coverage.labels(repr(risk)).set(float("nan"))
            for outcome in ("answered", "abstained"):
                self.questions.labels(repr(risk), outcome)

    def count_answer(self, risk: float, answered: bool) -> None:
        """Count a question that the model answered or abstained from."""
        self.questions.labels(repr(risk), "answered" if answered else "abstained").inc()
        counts = self._answered[risk]
        counts[0] += answered
        counts[1] += 1
        self.coverage.labels(repr(risk)).set(counts[0] / counts[1])

    def page(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        return generate_latest(self.registry)
