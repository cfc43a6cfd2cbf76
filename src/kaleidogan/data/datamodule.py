"""Shards -> batches: the datamodule that every model trains from."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset

from kaleidogan.data.order import Batches, Order
from kaleidogan.data.shards import Index, Reader, load_index
from kaleidogan.settings import Channels, CountOrZero, Resolution, Seed, size_of

Batch = dict[str, torch.Tensor]


@runtime_checkable
class Maker(Protocol):
    """What can write a data set that is not there yet."""

    def folder_name(self, resolution: tuple[int, int], channels: int) -> str:
        """Name a folder by what it will hold."""
        ...

    def write(self, folder: Path, resolution: tuple[int, int], channels: int) -> Index:
        """Write the set into the folder."""
        ...


class Pictures(Dataset[Batch]):
    """A data set's items by number: uint8 pictures [c, h, w] and labels, read straight from the shards."""

    def __init__(self, index: Index) -> None:
        self._reader = Reader(index)
        self._labels = torch.from_numpy(index.rows["label"].astype(np.int64))

    def __getitem__(self, item: int) -> Batch:
        flip, sample = divmod(item, len(self._labels))
        pixels = self._reader.read(sample)
        if flip:
            pixels = pixels[:, ::-1]
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return {"image": image, "label": self._labels[sample]}


class ImageData(pl.LightningDataModule):
    """Batches of pictures from shards, in the order that `order.py` defines.

    Args:
        path: folder of a data set that is there; null: under `root`, made by `maker`.
        maker: draws the set when it is not there (data=procedural).
        root: where `maker` puts its sets.
        resolution: (height, width) that the shards must have.
        channels: 1, 3 or 4; likewise.
        mirror: show each picture both ways round.
        num_workers: processes that read; null: none on a CPU, up to 4 beside a GPU.
        seed: of the order.
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
    ) -> None:
        super().__init__()
        size = size_of(resolution)
        if path is None and maker is None:
            raise ValueError("data.path is not set: name the folder of a data set, data.path=FOLDER")
        self.folder = Path(path) if path is not None else Path(root)
        if path is None and maker is not None:
            self.folder = Path(root) / maker.folder_name(size, channels)
        # A folder that is named has to be there: a mistyped one should not be filled with other pictures.
        self._maker = maker if path is None else None
        self._resolution = size
        self._channels = channels
        self._mirror = mirror
        self._num_workers = num_workers
        self._seed = seed
        self._index: Index | None = None
        self._clock: dict[str, Any] = {}
        self._c_dim = 0

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
        """Hand out each picture's class as a condition of so many numbers; 0: none.

        Raises:
            ValueError: if the set is there and has other classes, or none.
        """
        self._c_dim = c_dim
        if self._maker is None or self.folder.exists():
            self._check_labels()

    def _check_labels(self) -> None:
        """Refuse labels that are missing, too many or too few for the model."""
        names = self.index.label_names
        if self._c_dim == 0:
            return
        if len(names) != self._c_dim:
            remedy = f"model.c_dim={len(names)}" if names else "model.c_dim=0, or prepare with labels=folders"
            raise ValueError(
                f"model.c_dim={self._c_dim}, but '{self.folder}' has {len(names)} classes"
                f"{': ' + ', '.join(names[:10]) if names else ''}; set {remedy}"
            )
        if missing := int((self.index.rows["label"] < 0).sum()):
            raise ValueError(
                f"{missing} of {len(self.index)} pictures in '{self.folder}' have no label, and "
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
            index = load_index(self.folder)
            for key, wanted, found in (
                ("resolution", list(self._resolution), list(index.resolution)),
                ("channels", self._channels, index.channels),
            ):
                if wanted != found:
                    raise ValueError(
                        f"{key}={wanted} is asked for, but '{self.folder}' holds {found}: "
                        f"set {key}={str(found).replace(' ', '')}, or prepare the pictures again"
                    )
            self._index = index
        return self._index

    def check(self) -> None:
        """Open the set at once, unless it is one that is made when training begins."""
        if self._maker is None or self.folder.exists():
            _ = self.index

    def prepare_data(self) -> None:
        """Write the set if it is one that can be made and is not there (once a node)."""
        if self._maker is not None and not self.folder.exists():
            try:
                self._maker.write(self.folder, self._resolution, self._channels)
            except OSError:
                if not (self.folder / "index.json").is_file():  # else another process was quicker
                    raise

    def setup(self, stage: str) -> None:
        """Open the index, and refuse a set that is smaller than a batch."""
        batch_sizes = self._clock["batch_sizes"]
        if len(self.index) < max(batch_sizes):
            levels = ", or growth.batch_sizes for each level" if len(batch_sizes) > 1 else ""
            raise ValueError(
                f"'{self.folder}' has {len(self.index)} pictures, fewer than one batch of "
                f"{max(batch_sizes)}: set batch_size={len(self.index)} or less{levels}"
            )
        self._check_labels()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make the loader of this rank's part of each global batch; one iteration is a tick."""
        assert self.trainer is not None
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        num_workers = self._num_workers
        if num_workers is None:
            num_workers = 0 if on_cpu else min(4, torch.multiprocessing.cpu_count())
        counts = [shard.samples for shard in self.index.shards]
        return DataLoader(
            Pictures(self.index),
            batch_sampler=Batches(
                Order(counts, seed=self._seed, mirror=self._mirror),
                rank=self.trainer.global_rank,
                world_size=self.trainer.world_size,
                **self._clock,
            ),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_signals,
            pin_memory=not on_cpu,
            # A generator of its own: starting an iteration draws nothing from the training's random numbers.
            generator=torch.Generator(),
        )

    def reals(self, count: int) -> torch.Tensor:
        """The first pictures of the first pass, [count, c, h, w] in [-1, 1]; all, if the set has fewer."""
        order = Order([shard.samples for shard in self.index.shards], seed=self._seed)
        pictures = Pictures(self.index)
        items = order.items(0, min(count, len(order))).tolist()
        return to_float(torch.stack([pictures[item]["image"] for item in items]))

    def conditions(self, count: int) -> torch.Tensor | None:
        """The conditions of the first pictures of the first pass, again from the start if the set has fewer.

        Returns:
            [count, c_dim]; None where the model takes none.
        """
        if self._c_dim == 0:
            return None
        order = Order([shard.samples for shard in self.index.shards], seed=self._seed)
        items = order.items(0, min(count, len(order)))
        labels = torch.from_numpy(self.index.rows["label"][items].astype(np.int64))
        return one_hot(labels[torch.arange(count) % len(labels)], self._c_dim).float()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn the pictures to float in [-1, 1] and the labels to conditions, on the device."""
        batch = {**batch, "image": to_float(batch["image"])}
        if self._c_dim:
            batch["condition"] = one_hot(batch["label"], self._c_dim).float()
        return batch


def _ignore_signals(worker: int) -> None:
    """Leave a stop to the main process, which still wants the rest of its batch."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def to_float(image: torch.Tensor) -> torch.Tensor:
    """Map uint8 0 ... 255 to float -1 ... 1."""
    return image.float().mul_(1 / 127.5).sub_(1)
