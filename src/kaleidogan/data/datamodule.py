"""Shards -> batches: the datamodule that every model trains from."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from kaleidogan.data.decoded import open_decoded
from kaleidogan.data.files import Patience, Remote, default_cache, open_files
from kaleidogan.data.loading import Batch, Losses, Pictures, load_batches, scales, standardized, to_float
from kaleidogan.data.order import Batches, Order
from kaleidogan.data.prefetch import Prefetch, check_room, fetch_first
from kaleidogan.data.reader import PictureReader, Reader
from kaleidogan.data.shards import Index, load_index
from kaleidogan.settings import (
    Channels,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    Resolution,
    Seed,
    size_of,
)


@runtime_checkable
class Maker(Protocol):
    """What can write a data set that is not there yet."""

    def folder_name(self, resolution: tuple[int, int], channels: int) -> str:
        """Name a folder by what it will hold."""
        ...

    def write(self, folder: Path, resolution: tuple[int, int], channels: int) -> Index:
        """Write the set into the folder."""
        ...


class ImageData(pl.LightningDataModule):
    """Batches of pictures from shards, in the order that `order.py` defines.

    Args:
        path: folder or address (http(s)://, s3://, gs://) of a data set that is there; null: under `root`,
            made by `maker`.
        maker: draws the set when it is not there (data=procedural).
        root: where `maker` puts its sets.
        resolution: (height, width) that the shards must have.
        channels: 1, 3 or 4; likewise.
        mirror: show each picture both ways round.
        num_workers: processes that read; null: none on a CPU, up to 4 beside a GPU.
        seed: of the order.
        window: shards whose samples are shuffled among each other.
        weights: how often a shard's pictures are shown, by its name or a pattern such as '00000?.tar'; 1 for
            the others.
        on_error: what to do about damaged samples: raise, or skip them, counted and told.
        max_lost: the share of the samples that may be skipped before training stops.
        decoded: decode all pictures once, and read from the mapped file: fast, for h * w * c bytes a picture.
        cache: folder for decoded pictures and far shards; null: ~/.cache/kaleidogan.
        cache_gb: what far shards may take of it.
        timeout: seconds without an answer before an attempt to load a far shard is given up.
        retries: how many attempts follow a failed one.
        pipe: whether path may be a command, pipe:COMMAND, with {} for the file's name.
    """

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: Channels = 3,
        path: str | None = None,
        maker: Maker | None = None,
        root: str = "data",
        mirror: bool = False,
        num_workers: CountOrZero | None = None,
        seed: Seed = 0,
        window: Count = 16,
        weights: dict[str, NotNegative] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        max_lost: Fraction = 0.01,
        decoded: bool = False,
        cache: str | None = None,
        cache_gb: Positive = 50.0,
        timeout: Positive = 30.0,
        retries: CountOrZero = 8,
        pipe: bool = False,
    ) -> None:
        super().__init__()
        size = size_of(resolution)
        if path is None and maker is None:
            raise ValueError("data.path is not set: name the folder of a data set, data.path=FOLDER")
        if path is None and maker is not None:
            self.place = str(Path(root) / maker.folder_name(size, channels))
        else:
            # One that is named has to be there: a mistyped one should not be filled with other pictures.
            self.place, maker = str(path), None
        self._maker = maker
        self._cache = Path(cache).expanduser() if cache else default_cache()
        self._files = open_files(
            self.place,
            cache=self._cache,
            max_bytes=int(cache_gb * 1e9),
            patience=Patience(timeout, retries),
            pipe=pipe,
        )
        self._resolution = size
        self._channels = channels
        self._mirror = mirror
        self._num_workers = num_workers
        self._seed = seed
        self._window = window
        self._weights = weights
        self._skip = on_error == "skip"
        self._max_lost = max_lost
        self._decode = decoded
        self._index: Index | None = None
        self._reader: PictureReader | None = None
        self._losses: Losses | None = None
        self._prefetch: Prefetch | None = None
        self._clock: dict[str, Any] = {}
        self._c_dim = 0
        self.say: Callable[[str], None] = print
        """Is told what all ranks see."""
        self.tell: Callable[[str], None] = print
        """Is told what this rank alone sees."""

    def schedule(
        self,
        *,
        batch_sizes: list[int],
        level: Callable[[], int] = int,
        tick: int,
        stop: int,
        position: Callable[[], int],
    ) -> None:
        """Say how batches are cut, see `order.Batches`."""
        self._clock = {
            "batch_sizes": batch_sizes,
            "level": level,
            "tick": tick,
            "stop": stop,
            "position": position,
        }

    def condition(self, c_dim: int) -> None:
        """Hand out each picture's class or condition as so many numbers; 0: none.

        Raises:
            ValueError: if the set is there and has others, or none.
        """
        self._c_dim = c_dim
        if self._is_there():
            self._check_labels()

    def _is_there(self) -> bool:
        """Whether the set is, or should be, one that was made before."""
        return self._maker is None or Path(self.place).exists()

    def _check_labels(self) -> None:
        """Refuse labels that are missing, too many or too few for the model."""
        names = self.index.about.condition_names or self.index.label_names
        kind = "conditions" if self.index.about.condition_names else "classes"
        if self._c_dim == 0:
            return
        if len(names) != self._c_dim:
            remedy = f"model.c_dim={len(names)}" if names else "model.c_dim=0, or prepare with labels=folders"
            raise ValueError(
                f"model.c_dim={self._c_dim}, but '{self.place}' has {len(names)} {kind}"
                f"{': ' + ', '.join(names[:10]) if names else ''}; set {remedy}"
            )
        missing = int((self.index.rows["label"] < 0).sum())
        if missing and kind == "classes":
            raise ValueError(
                f"{missing} of {len(self.index)} pictures in '{self.place}' have no label, and "
                f"model.c_dim={self._c_dim} asks for one each; label them, or set model.c_dim=0"
            )

    @property
    def stop(self) -> int:
        """Images at which training ends."""
        return int(self._clock["stop"])

    def ends_tick(self, before: int, now: int) -> bool:
        """Whether the batch between two counts of images was a tick's last, see `order.Batches`."""
        tick = self._clock["tick"]
        return bool(now // tick > before // tick or now >= self.stop)

    @property
    def tick(self) -> int:
        """Images from one tick to the next."""
        return int(self._clock["tick"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the pictures."""
        return (self._channels, *self._resolution)

    @property
    def num_items(self) -> int:
        """Items in a pass: the pictures, twice where they are mirrored."""
        return len(self.index) * (2 if self._mirror else 1)

    @property
    def index(self) -> Index:
        """The set's index, opened and checked when it is first asked for.

        Raises:
            ValueError: if the shards hold another resolution or number of channels.
        """
        if self._index is None:
            index = load_index(self._files, check=not self._skip)
            for key, wanted, found in (
                ("resolution", list(self._resolution), list(index.resolution)),
                ("channels", self._channels, index.channels),
            ):
                if wanted != found:
                    raise ValueError(
                        f"{key}={wanted} is asked for, but '{self.place}' holds {found}: "
                        f"set {key}={str(found).replace(' ', '')}, or prepare the pictures again"
                    )
            if isinstance(self._files, Remote) and not self._decode:
                check_room(index, self._window)
            self._index = index
        return self._index

    def check(self) -> None:
        """Open the set at once, unless it is one that is made when training begins."""
        if self._is_there():
            _ = self._order()

    def _order(self, plain: bool = False) -> Order:
        """Make the order of the set's items; a plain one shows each as it is, once a pass."""
        shards = self.index.shards
        weights = None
        if self._weights and not plain:
            names = [shard.name for shard in shards]
            for pattern in self._weights:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ValueError(
                        f"data.weights names '{pattern}', which is no shard of '{self.place}' "
                        f"({names[0]} to {names[-1]})"
                    )
            weights = [
                next((w for pattern, w in self._weights.items() if fnmatchcase(name, pattern)), 1.0)
                for name in names
            ]
        counts = [shard.samples for shard in shards]
        mirror = self._mirror and not plain
        return Order(counts, seed=self._seed, mirror=mirror, window=self._window, weights=weights)

    def prepare_data(self) -> None:
        """Write the set if it is one that can be made and is not there (once a node)."""
        if not self._is_there():
            assert self._maker is not None
            try:
                self._maker.write(Path(self.place), self._resolution, self._channels)
            except OSError:
                if not (Path(self.place) / "index.json").is_file():  # else another process was quicker
                    raise

    def setup(self, stage: str) -> None:
        """Open the index, and refuse a set that is smaller than a batch."""
        batch_sizes = self._clock["batch_sizes"]
        if len(self.index) < max(batch_sizes):
            levels = ", or growth.batch_sizes for each level" if len(batch_sizes) > 1 else ""
            raise ValueError(
                f"'{self.place}' has {len(self.index)} pictures, fewer than one batch of "
                f"{max(batch_sizes)}: set batch_size={len(self.index)} or less{levels}"
            )
        self._check_labels()

    def _pictures(self) -> Pictures:
        """Open the pictures, and decode them first if that is asked for."""
        if self._skip and self._losses is None:
            self._losses = Losses(self.index, self._max_lost, self.say, self.tell)
        if self._reader is None:
            self._reader = Reader(self.index)
            if self._decode:
                self._reader = open_decoded(self.index, self._cache, skip=self._skip)
        lost = self._losses.lost if self._losses else None
        return Pictures(self.index, self._reader, self._skip, lost)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make the loader of this rank's part of each global batch; one iteration is a tick."""
        assert self.trainer is not None
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        num_workers = self._num_workers
        if num_workers is None:
            num_workers = 0 if on_cpu else min(4, torch.multiprocessing.cpu_count())
        order = self._order()
        batches = Batches(
            order, rank=self.trainer.global_rank, world_size=self.trainer.world_size, **self._clock
        )
        if isinstance(self._files, Remote) and not self._decode:
            fetch_first(self.index, order, self._clock["position"]())
            # Started with the first batch, when the workers are: a process with threads should not fork.
            self._prefetch = Prefetch(self.index, order, lambda: batches.reached)
            batches.on_start = self._prefetch.start_once
        return load_batches(self._pictures(), batches, num_workers, pin_memory=not on_cpu)

    def teardown(self, stage: str) -> None:
        """Load no more shards."""
        if self._prefetch is not None:
            self._prefetch.close()

    def reals(self, count: int) -> torch.Tensor:
        """The first pictures of the first pass, [count, c, h, w] in [-1, 1]; all, if the set has fewer."""
        order = self._order(plain=True)
        items = order.items(0, min(count, len(order))).tolist()
        return to_float(self._pictures().__getitems__(items)["image"]).contiguous()

    def conditions(self, count: int) -> torch.Tensor | None:
        """The conditions of the first pictures of the first pass, again from the start if the set has fewer.

        Returns:
            [count, c_dim]; None where the model takes none.
        """
        if self._c_dim == 0:
            return None
        order = self._order(plain=True)
        items = np.resize(order.items(0, min(count, len(order))), count)
        if self.index.conditions is not None:
            return torch.from_numpy(standardized(self.index)[items])
        return one_hot(
            torch.from_numpy(self.index.rows["label"][items].astype(np.int64)), self._c_dim
        ).float()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count what was lost on the way.

        Raises:
            DataError: if that is more than `max_lost`.
        """
        if self._losses is not None:
            self._losses.add(batch["lost"])
        return {key: value for key, value in batch.items() if key not in ("lost", "sample")}

    def describe(self) -> dict[str, Any]:
        """What the model's conditions stand for, in plain values: names, and how numbers were scaled."""
        about = self.index.about
        if not self._c_dim or not about.condition_names:
            return {"names": list(about.label_names)} if self._c_dim else {}
        mean, scale = scales(self.index)
        return {"names": list(about.condition_names), "mean": mean.tolist(), "scale": scale.tolist()}

    def measure(self) -> dict[str, float]:
        """How many samples are lost so far, to all ranks; nothing where a lost one is an error.

        Raises:
            DataError: if that is more than `max_lost`.
        """
        if self._losses is None:
            return {}
        if self.trainer is not None and self.trainer.world_size > 1:
            own = torch.from_numpy(self._losses.lost.astype(np.uint8))
            self._losses.merge(self.trainer.strategy.reduce(own, reduce_op="max").numpy().astype(bool))
        return {"data/lost": float(self._losses.lost.sum())}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn the pictures to float in [-1, 1] and the labels to conditions, on the device."""
        batch = {**batch, "image": to_float(batch["image"])}
        if self._c_dim and "condition" not in batch:
            batch["condition"] = one_hot(batch["label"], self._c_dim).float()
        elif not self._c_dim:
            batch.pop("condition", None)
        return batch
