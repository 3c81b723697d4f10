"""Conformance of data sources: samples of one shape, of tokens it knows, the same for the same seed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from halos.config.yaml_text import Section
from halos.data import Corpus, DataSource
from halos.testing.conformance.suite import Suite
from halos.testing.recording import tiny
from halos.testing.witness import everything, first_difference

SEED = 1234


class DataConformance(Suite):
    """Opened, read by slices and by numbers, and trained on by two workers."""

    kind: ClassVar[str] = "data source"
    sequence_length: ClassVar[int] = 8  # unless the section has its own
    validation_samples: ClassVar[int] = 4  # likewise

    def test_samples_are_tokens_it_knows(self, section: Section) -> None:
        """Or, without a vocabulary, one or more arrays of numbers."""
        source, corpus = self.source(section), self.opened(section)
        self.check(len(corpus) > 0, section, "it holds no sample")
        read, count = corpus.read(slice(0, min(64, len(corpus)))), min(64, len(corpus))
        if corpus.vocab_size is None:
            for part in parts(read):
                words = f"{count} samples were read as {part.dtype}{list(part.shape)}"
                self.check(part.dtype.kind in "biuf" and part.shape[:1] == (count,), section, words)
            return
        (samples,), shape = parts(read), (count, source.sequence_length + 1)
        self.check(samples.shape == shape, section, f"samples of shape {samples.shape} were read, expected are {shape}")
        self.check(samples.dtype.kind in "iu", section, f"its tokens are {samples.dtype}, not integers")
        low, high = int(samples.min()), int(samples.max())
        words = f"its tokens go from {low} to {high}, its vocabulary from 0 to {corpus.vocab_size - 1}"
        self.check(low >= 0 and high < corpus.vocab_size, section, words)

    def test_says_its_vocabulary_before_it_is_opened(self, section: Section) -> None:
        """Or None, if it does not know; what it knows is the truth."""
        said, has = self.source(section).vocabulary(), self.opened(section).vocab_size
        self.check(said is None or said == has, section, f"says {said} different tokens, opened it has {has}")

    def test_samples_by_number_are_those_of_the_slice(self, section: Section) -> None:
        corpus = self.opened(section)
        rows = np.array([0, len(corpus) - 1, len(corpus) // 2, 0])
        pieces = [parts(corpus.read(slice(int(row), int(row) + 1))) for row in rows]
        by_slice = tuple(np.concatenate(column) for column in zip(*pieces))
        self.check(same(corpus.read(rows), by_slice), section, f"samples {rows} differ from the slices' there")

    def test_is_the_same_each_time_it_is_opened(self, section: Section) -> None:
        """Samples and hash follow from seed and section alone."""
        np.random.seed(0)
        one = self.opened(section)
        other = self.opened(section)
        hashes = f"opened twice, its hashes are {one.hash} and {other.hash}"
        self.check(one.hash == other.hash and bool(one.hash), section, hashes)
        every = slice(0, len(one))
        alike = len(one) == len(other) and same(one.read(every), other.read(every))
        self.check(alike, section, "opened twice, its samples differ")

    def test_every_sample_has_a_source_or_none_has(self, section: Section) -> None:
        corpus = self.opened(section)
        sources = corpus.sources
        count = len(corpus) if sources is None else len(sources)
        self.check(count == len(corpus), section, f"{count} samples of {len(corpus)} have a source")

    def test_is_trained_on_twice_alike(self, section: Section) -> None:
        sections = tiny() | {"data": self.whole(section)}
        one, other = (everything(self.record(section, sections)) for _ in range(2))
        what = first_difference(one, other)
        self.check(what is None, section, f"trained on twice, {what}")

    def whole(self, section: Section) -> Section:
        """The section with the suite's own defaults."""
        return {"sequence_length": self.sequence_length, "validation_samples": self.validation_samples, **section}

    def source(self, section: Section) -> DataSource:
        """A new configuration of it."""
        source: DataSource = self.build(self.whole(section))
        return source

    def opened(self, section: Section) -> Corpus:
        """Opened, by one seed."""
        source = self.source(section)
        with self.about(section):
            return source.open(SEED)


def parts(samples: Any) -> tuple[Any, ...]:
    """The arrays that samples are made of."""
    return samples if isinstance(samples, tuple) else (samples,)


def same(one: Any, other: Any) -> bool:
    """Whether two readings hold the same."""
    return len(parts(one)) == len(parts(other)) and all(map(np.array_equal, parts(one), parts(other)))
