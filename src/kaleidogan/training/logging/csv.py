"""The scalars as a table in the run's folder."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from kaleidogan.training.runs import Run


class CSV(Logger):
    """The scalars as `metrics.csv` in the run's folder: a row a tick, a column a scalar."""

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        self.path = run.folder / "metrics.csv"
        self._run = run

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the configuration stands in `config.yaml` beside."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a scalar that was never seen before makes a new column."""
        row = {"images": step, **metrics}
        columns = self._columns()
        if new := [key for key in row if key not in columns]:
            columns += new
            self._rewrite(columns, self.rows())
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, columns).writerow(row)

    @rank_zero_only
    def cut(self, images: int) -> None:
        """Drop the rows of later images: they come again."""
        columns = self._columns()
        if columns:
            self._rewrite(columns, [row for row in self.rows() if int(row["images"]) <= images])

    def rows(self) -> list[dict[str, str]]:
        """All rows that were written whole."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as stream:
            # A kill may have cut the last line short.
            return [row for row in csv.DictReader(stream) if None not in row.values() and row["images"]]

    def _columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as stream:
            return next(csv.reader(stream), [])

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        aside = self.path.with_suffix(".tmp")
        with aside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        aside.replace(self.path)
