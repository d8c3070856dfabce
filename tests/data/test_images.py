from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data import Dataset, image_folder, read_image


def save(path: Path, value: int = 255, size: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(path)
    return path


def test_a_published_omniglot_file_gives_an_omniglot_row(
    tmp_path: Path, originals: tuple[np.ndarray, list[str]]
) -> None:
    """Dark ink on light paper, one bit a pixel, as the published PNG files are."""
    bits, _ = originals
    Image.fromarray(~bits[5, 6]).save(tmp_path / "a.png")
    row = read_image(tmp_path / "a.png")
    assert row.shape == (1, 28, 28)
    assert row.dtype == torch.float32
    ink = Image.fromarray(bits[5, 6]).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
    assert (row[0] * 255 - torch.from_numpy(np.array(ink))).abs().max() <= 1  # the filter rounds on the other side


def test_ink_and_paper(tmp_path: Path) -> None:
    black, white = save(tmp_path / "b.png", 0), save(tmp_path / "w.png", 255)
    assert (read_image(black) == 1).all()
    assert (read_image(white) == 0).all()
    assert (read_image(white, invert=False) == 1).all()
    assert read_image(white, size=10).shape == (1, 10, 10)


def test_colour_is_not_inverted(tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), (255, 0, 51)).save(tmp_path / "c.png")
    assert torch.allclose(read_image(tmp_path / "c.png", colour=True)[:, 4, 5], torch.tensor([1.0, 0.0, 0.2]))


def test_transparency_is_paper(tmp_path: Path) -> None:
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "t.png")
    assert (read_image(tmp_path / "t.png") == 0).all()


def test_the_camera_orientation_is_obeyed(tmp_path: Path) -> None:
    image = Image.new("L", (28, 28), 255)
    image.paste(0, (0, 0, 28, 14))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    image.save(tmp_path / "e.jpg", exif=exif)
    row = read_image(tmp_path / "e.jpg")
    assert row[0, :10].mean() < 0.1
    assert row[0, -10:].mean() > 0.9


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.png is damaged or is no image"):
        read_image(tmp_path / "bad.png")
    with pytest.raises(ValueError, match=r"bad.png is damaged or is no image"):
        image_folder(tmp_path)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut.png is damaged"):
        read_image(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no image .*none.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="size must be at least 1"):
        read_image(save(tmp_path / "a.png"), 0)


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name, value in (("b/2.png", 0), ("b/1.PNG", 255), ("a/x/1.png", 0), (".hidden/1.png", 0)):
        save(tmp_path / name, value)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    images, labels, paths = image_folder(tmp_path)
    assert labels == ["a/x", "b", "b"]
    assert [p.name for p in paths] == ["1.png", "1.PNG", "2.png"]
    assert images.dtype == np.uint8
    assert images.shape == (3, 1, 28, 28)
    assert images[:, 0, 0, 0].tolist() == [255, 0, 255]
    dataset = Dataset.from_labels(images, labels)
    assert dataset.gather(np.array([0])).mean() == 1


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("2.png", "1.png"):
        save(tmp_path / name)
    images, labels, paths = image_folder(tmp_path, 12, colour=True)
    assert labels is None
    assert [p.name for p in paths] == ["1.png", "2.png"]
    assert images.shape == (2, 3, 12, 12)


def test_unclear_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        image_folder(tmp_path)
    save(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*b holds no images"):
        image_folder(tmp_path)
    save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"holds images \(loose.png, ...\) beside class folders"):
        image_folder(tmp_path)
