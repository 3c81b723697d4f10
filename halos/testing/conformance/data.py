"""Conformance of data sources: samples of one length, of tokens it knows, the same for the same seed."""

from __future__ import annotations

from typing import ClassVar

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
        source, corpus = self.source(section), self.opened(section)
        self.check(len(corpus) > 0, section, "it holds no sample")
        samples = corpus.read(slice(0, min(64, len(corpus))))
        shape = (min(64, len(corpus)), source.sequence_length + 1)
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
        by_number = corpus.read(rows)
        by_slice = np.concatenate([corpus.read(slice(int(row), int(row) + 1)) for row in rows])
        self.check(bool((by_number == by_slice).all()), section, f"samples {rows} differ from the slices' there")

    def test_is_the_same_each_time_it_is_opened(self, section: Section) -> None:
        """Samples and hash follow from seed and section alone."""
        np.random.seed(0)
        one = self.opened(section)
        other = self.opened(section)
        hashes = f"opened twice, its hashes are {one.hash} and {other.hash}"
        self.check(one.hash == other.hash and bool(one.hash), section, hashes)
        every = slice(0, len(one))
        same = len(one) == len(other) and bool((one.read(every) == other.read(every)).all())
        self.check(same, section, "opened twice, its samples differ")

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
