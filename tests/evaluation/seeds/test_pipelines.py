"""The files of every format, read by the formulas of their pipelines' own scripts (tests/pipelines.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MODEL, SMALL, VOC_MODEL, run, scores_in
from made_datasets import NAMES, Shapes, colour_classifier, make_folder, make_ilsvrc, make_voc, shapes
from pipelines import (
    WsolEvaluation,
    class_ious,
    clip_es_labels,
    irn_confident_labels,
    irn_instance_classes,
    irn_labels,
    irn_walked_labels,
    mask_of,
    psa_affinity_labels,
    psa_labels,
    psa_walk_input,
)

from captum_regioncam.evaluation import (
    PixelMetric,
    Protocol,
    Sample,
    Seed,
    evaluate,
    evaluate_seeds,
    label_map,
    load_seed,
    open_dataset,
    save_seed,
    write_label_maps,
    write_seeds,
)
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.seeds.files import encode_arrays
from captum_regioncam.evaluation.seeds.reading import is_whole_scores, is_whole_seed

SIZE = (37, 50)  # neither is a multiple of 4


@pytest.fixture
def seed():
    maps = torch.rand(2, 10, 13)
    high_res = np.random.default_rng(1).random((2, *SIZE), np.float32)
    return Seed(
        torch.tensor([0, 14]), maps / maps.amax((1, 2), keepdim=True), high_res / high_res.max((1, 2))[:, None, None]
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "photo.npy"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_irn(path, seed, dtype):
    save_seed(path, seed, dtype=dtype)
    again = load_seed(path)
    assert again.high_res.dtype == np.float32
    for threshold in (0.15, 0.5, 0.9):
        ours = label_map(np.load(path, allow_pickle=True).item()["high_res"], again.keys, threshold)
        assert np.array_equal(irn_labels(path, threshold), ours)
        assert (ours != label_map(seed.high_res, seed.keys, threshold)).mean() <= (0 if dtype == "float32" else 0.005)
    sure = irn_confident_labels(path, 0.3, 0.8)
    assert set(np.unique(sure)) == {0, 1, 15, 255}
    # The random walk multiplies cam by tensors in float32, whatever high_res is in.
    walked = irn_walked_labels(path, SIZE, 0.6)
    assert walked.shape == SIZE
    assert set(np.unique(walked)) == {0, 1, 15}
    keys, maps = irn_instance_classes(path, 3)
    assert keys.tolist() == [0, 0, 0, 14, 14, 14]
    assert torch.equal(maps, seed.cam[:, None].expand(-1, 3, -1, -1))


def test_irn_s_confident_labels(path, seed):
    """The same without CRF: of two label maps, where both agree."""
    save_seed(path, seed)
    sure, maybe = (label_map(seed.high_res, seed.keys, threshold) for threshold in (0.8, 0.3))
    expected = np.where(sure > 0, sure, np.where(maybe > 0, 255, 0))
    assert np.array_equal(irn_confident_labels(path, 0.3, 0.8), expected)


def test_irn_without_high_res(path, seed):
    save_seed(path, seed, high_res=False)
    assert sorted(np.load(path, allow_pickle=True).item()) == ["cam", "keys"]
    with pytest.raises(ValueError, match=r"has no high_res; give the size of its photo, or the data set of the seeds"):
        load_seed(path)
    with pytest.raises(ValueError, match=r"has a cam of shape \(2, 10, 13\), but its photo is \(41, 50\)"):
        load_seed(path, size=(41, 50))
    with pytest.raises(ValueError, match=r"size=\(0, 50\): expects \(height, width\)"):
        load_seed(path, size=(0, 50))
    again = load_seed(path, size=SIZE)
    assert torch.equal(again.cam, seed.cam)
    assert again.high_res.shape == (2, *SIZE)
    assert again.high_res.flags.c_contiguous
    # What IRN makes of cam is what load_seed gives, divided by the maximum.
    ours = label_map(again.high_res / again.high_res.max(), again.keys, 0.6)
    assert np.array_equal(irn_walked_labels(path, SIZE, 0.6), ours)
    nothing = Seed(torch.tensor([], dtype=torch.long), torch.zeros(0, 10, 13), np.zeros((0, *SIZE), np.float32))
    save_seed(path, nothing, high_res=False)
    assert load_seed(path, size=SIZE).high_res.shape == (0, *SIZE)


def test_memory_of_a_seed_without_high_res_is_bounded(path):
    """A cam that is a view of one number, upsampled, would be 16 times as large."""
    np.save(path, {"keys": [1], "cam": torch.zeros(1, 1).expand(400, 400)[None]})
    with pytest.raises(ValueError, match="makes 640,000 bytes of maps; its own size and max_bytes allow 6"):
        load_seed(path, size=(1600, 1600))
    np.save(path, {"keys": [1], "cam": torch.zeros(1, 400, 400)})
    assert load_seed(path, size=(1598, 1600)).high_res.shape == (1, 1598, 1600)
    with pytest.raises(ValueError, match="makes 640,000 bytes of maps; its own size and max_bytes allow 62,500"):
        load_seed(path, size=(1600, 1600), max_bytes=1_000_000)


def test_toco(path, seed):
    """ToCo's own tools/infer_seg_as_cam.py writes no cam, and reads none."""
    np.save(path, {"keys": seed.keys.numpy(), "high_res": seed.high_res})
    again = load_seed(path)
    assert again.keys.tolist() == [0, 14]
    assert again.cam.shape == (2, 10, 13)
    assert np.array_equal(again.high_res, seed.high_res)
    assert np.array_equal(irn_labels(path, 0.5), label_map(again.high_res, again.keys, 0.5))
    save_seed(path, seed)  # and ours
    assert np.array_equal(irn_labels(path, 0.5), label_map(seed.high_res, seed.keys, 0.5))


def test_psa(path, seed):
    save_seed(path, seed, "psa")
    again = load_seed(path)
    for threshold in (0.0, 0.2, 0.7):
        assert np.array_equal(psa_labels(path, threshold), label_map(again.high_res, again.keys, threshold))
    planes = psa_walk_input(path, SIZE, 4)
    assert np.array_equal(planes[[1, 15]], seed.high_res)
    np.testing.assert_allclose(planes[0], (1 - seed.high_res.max(0)) ** 4)
    assert not np.delete(planes, [0, 1, 15], axis=0).any()


def test_clip_es(path, seed):
    save_seed(path, seed, "clip-es")
    again = load_seed(path)
    for threshold in (0.15, 0.6):
        halves = again.high_res.astype(np.float16)
        assert np.array_equal(clip_es_labels(path, threshold), label_map(halves, again.keys, threshold))
    assert set(np.unique(clip_es_labels(path, 1))) == {0, 1, 15}


def test_scores_are_those_of_seam_s_evaluation(colour_factory):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1,0.5", "--format", "psa", "--output", "seeds"]
    assert run(*command) == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "seeds", "--threshold", "0.05", "--json", "out.json") == 0
    ours = scores_in("out.json")["seeds in seeds"]["per_class"]
    masks = [mask_of(root / "SegmentationClass" / f"{name}.png") for name in NAMES]
    theirs = class_ious([psa_labels(f"seeds/{name}.npy", 0.05) for name in NAMES], masks)
    found = [100 * iou for iou in theirs[:4]]
    assert list(ours.values())[:4] == pytest.approx(found, abs=1e-3)
    assert sorted(found)[1] > 1


BOXES = ["ilsvrc", "--model", "colour_factory:colour_net", "--layers", "relu1,relu2", "--device", "cpu", *SMALL]


def boxes_of(data):
    """The lines of wsolevaluation's localization.txt and image_sizes.txt, by image id."""
    samples = (data[index] for index in range(len(data)))
    return {
        image_id: [WsolEvaluation.resized_box(box, sample.photo.size) for box in sample.boxes.astype(int)]
        for image_id, sample in zip(data.image_ids, samples, strict=True)
    }


@pytest.mark.parametrize("refine", [[], ["--refine"]])
def test_wsolevaluation_scores_boxes_as_evaluate_does(colour_factory, refine, capsys):
    root = make_ilsvrc(Path("data"))
    command = [BOXES[0], "--root", root, *BOXES[1:], *refine]
    assert run("seeds", *command, "--output", "scoremaps") == 0
    assert "maps upsampled to 224 x 224, where boxes and masks are compared; each stretched" in capsys.readouterr().out
    assert run("evaluate", *command, "--json", "out.json") == 0
    data = open_dataset("ilsvrc", root)
    assert data.image_ids[0] == "val/ILSVRC2012_val_00000001.JPEG"
    theirs = WsolEvaluation(0.01)
    for image_id, boxes in boxes_of(data).items():
        scores = theirs.scoremap("scoremaps", image_id)
        assert scores.shape == (224, 224)
        assert (scores.min(), scores.max()) == (0, 1)
        theirs.add_boxes_of(scores, boxes)
    ours = scores_in("out.json")["region-cam"]
    assert ours["max_box_acc"] == pytest.approx(100 * theirs.max_box_acc(False, [50]), abs=1e-4)
    assert ours["max_box_acc_v2"] == pytest.approx(100 * theirs.max_box_acc(True, [30, 50, 70]), abs=1e-4)
    assert 0 < ours["max_box_acc"] < 100
    record = json.loads(Path("scoremaps/.captum_regioncam.json").read_text())
    settings = record["runs"][0]["settings"]
    assert (settings["format"], settings["upsample"], settings["normalize"]) == ("wsol", "boxes", "minmax")


def test_wsolevaluation_scores_masks(colour_factory):
    root = make_folder(Path("data"))
    assert run("seeds", "folder", "--root", root, *MODEL, *SMALL, "--format", "wsol", "--output", "scoremaps") == 0
    theirs, ours = WsolEvaluation(0.001), PixelMetric()
    for index in range(4):
        scores = theirs.scoremap("scoremaps", f"photo_{index}")
        mask = theirs.mask(root / "masks" / f"photo_{index}.png")
        theirs.add_mask_of(scores, mask)
        ours.update(torch.from_numpy(scores), mask)
    assert theirs.pxap() == pytest.approx(float(ours.compute()), abs=1e-3)
    assert theirs.pxap() > 0.1
    # Label maps and scores are made at the photo's size, to which the maps are resized.
    assert run("label-maps", "scoremaps", "--output", "labels", "--threshold", "0.4") == 0
    assert (
        run("evaluate", "folder", "--root", root, "--seeds", "scoremaps", "--threshold", "0.4", "--json", "o.json") == 0
    )
    for index in range(4):
        seed = load_seed(f"scoremaps/photo_{index}.npy", size=(44, 60))
        assert seed.high_res.shape == (1, 44, 60)
        assert seed.cam.shape == (1, 11, 15)
        assert np.array_equal(mask_of(f"labels/photo_{index}.png"), seed.high_res[0] > 0.4)
        assert load_seed(f"scoremaps/photo_{index}.npy").high_res.shape == (1, 224, 224)


def test_maps_of_earlier_versions_are_of_the_photo_s_size(path):
    scores = np.random.default_rng(0).random((44, 60), np.float32)
    np.save(path, scores)
    assert np.array_equal(load_seed(path, size=(44, 60)).high_res[0], scores)


class Birds:
    """A data set of boxes as CUB is: its names are the image ids."""

    names = ("001.Black/one.jpg", "002.White/two.jpg")
    classes = ("black", "white", "red")
    truth = "boxes"

    def __getitem__(self, index):
        sample = Shapes()[index]
        return Sample(self.names[index], sample.photo, sample.keys[:1], sample.targets[:1], boxes=np.ones((1, 4)))


def test_a_data_set_of_boxes(tmp_path):
    data = Birds()
    written = write_seeds(colour_classifier(), data, tmp_path / "seeds", show_progress=False)
    assert written.names == list(data.names)
    for name in data.names:
        assert np.load(tmp_path / "seeds" / f"{name}.npy").shape == (224, 224)
    labels = write_label_maps(tmp_path / "seeds", tmp_path / "labels", data=data, show_progress=False)
    assert not labels.failures
    assert mask_of(tmp_path / "labels" / "001.Black" / "one.jpg.png").shape == (44, 60)
    [scores] = evaluate_seeds(tmp_path / "seeds", data, show_progress=False).scores.values()
    [made] = evaluate(colour_classifier(), data, show_progress=False).scores.values()
    assert scores["curve"] == made["curve"]
    other = write_seeds(colour_classifier(), data, tmp_path / "irn", format="irn", show_progress=False)
    assert load_seed(other.folder / f"{data.names[0]}.npy").high_res.shape == (1, 44, 60)
    settings = json.loads(other.record.read_text())["runs"][0]["settings"]
    assert settings["upsample"] == "photo"
    # Photos of several classes have no score map.
    with pytest.raises(ValueError, match=r"all photos failed, .* wsol holds one map per photo, not 2"):
        write_seeds(colour_classifier(), Shapes(), tmp_path / "no", format="wsol", limit=1, show_progress=False)


def test_a_photo_without_classes_has_no_score_map(tmp_path):
    class Nothing(Birds):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.name, sample.photo, [], []) if index else sample

    written = write_seeds(colour_classifier(), Nothing(), tmp_path / "seeds", show_progress=False)
    assert written.failures == {"002.White/two.jpg": "has no class, but a score map needs one."}


def test_every_layout_has_seeds(capsys):
    for name, layout in LAYOUTS.items():
        assert run("seeds", name, "--help") == 0
        text = " ".join(capsys.readouterr().out.split())
        default = "irn" if layout.truth == "masks" else "wsol"
        assert f"stretched from minimum to maximum; default: {default}" in text
        assert ("--upsample" in text) == (layout.truth == "masks")


def test_label_maps_of_score_maps(colour_factory, capsys):
    root = make_ilsvrc(Path("data"), photos=2)
    command = ["seeds", BOXES[0], "--root", root, *BOXES[1:], "--output", "seeds"]
    assert run(*command, "--label-maps", "labels", "--threshold", "0.4") == 0
    names = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2)]
    for index, name in enumerate(names):
        key = shapes(index)[2][0]
        expected = label_map(load_seed(f"seeds/{name}.npy", size=(44, 60)).high_res, [key], 0.4)
        assert np.array_equal(mask_of(f"labels/{name}.png"), expected)
        assert expected.any()
    with (root / "synset_words.txt").open("a") as file:
        file.writelines(f"n1{number:03d} another\n" for number in range(252))
    capsys.readouterr()
    assert run(*command, "--label-maps", "labels", "--resume") == 2
    assert "--label-maps: the photos have 255 classes, but an 8-bit label map holds 254." in capsys.readouterr().err
    assert run("label-maps", "seeds", "--output", "others") == 2
    assert "the photos have 255 classes" in capsys.readouterr().err
    assert not Path("others").exists()


def test_small_seeds_of_irn(colour_factory, capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1", "--limit", "2"]
    assert run(*command, "--output", "seeds") == 0
    assert run(*command, "--output", "half", "--dtype", "float16") == 0
    assert run(*command, "--output", "small", "--no-high-res", "--label-maps", "labels") == 0
    whole, half, small = (Path(folder, f"{NAMES[0]}.npy") for folder in ("seeds", "half", "small"))
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * 2 * 44 * 60, abs=8)
    np.testing.assert_allclose(load_seed(half).high_res, load_seed(whole).high_res, rtol=0, atol=5e-4)
    assert torch.equal(load_seed(small, size=(44, 60)).cam, load_seed(whole).cam)
    for name in NAMES[:2]:
        seed = load_seed(f"small/{name}.npy", size=(44, 60))
        assert np.array_equal(mask_of(f"labels/{name}.png"), label_map(seed.high_res, seed.keys))
    scores = []
    for folder in ("seeds", "half", "small"):
        assert run("evaluate", "voc", "--root", root, "--seeds", folder, "--limit", "2", "--json", "out.json") == 0
        scores.append(scores_in("out.json")[f"seeds in {folder}"]["best_miou"])
    assert scores[1] == pytest.approx(scores[0], abs=0.5)
    assert scores[2] == pytest.approx(scores[0], abs=8)  # on photos of 60 x 44 pixels, cam is 15 x 11
    # Both are settings of the folder.
    capsys.readouterr()
    assert run(*command, "--output", "small", "--resume") == 2
    assert "was made with high_res = False, but now it is None" in capsys.readouterr().err
    assert run(*command, "--output", "half", "--resume") == 2
    assert "was made with dtype = 'float16', but now it is None" in capsys.readouterr().err
    # Without a record, nothing tells the size.
    Path("small/.captum_regioncam.json").unlink()
    assert run("label-maps", "small", "--output", "others") == 2
    assert "has no high_res; give the size of its photo, or the data set of the seeds" in capsys.readouterr().err
    assert run("label-maps", "small", "--output", "others", "--dataset", "voc", "--root", root) == 0
    assert np.array_equal(mask_of(f"others/{NAMES[0]}.png"), mask_of(f"labels/{NAMES[0]}.png"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "psa", "--dtype", "float16"], "--dtype float16: applies only to --format irn, not to psa."),
        (["--format", "clip-es", "--no-high-res"], "--no-high-res: applies only to --format irn, not to clip-es."),
        (["--no-high-res", "--dtype", "float16"], "--dtype float16: cannot be used with --no-high-res, because"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--format", "wsol", "--upsample", "photo"], "--upsample: cannot be used with --format wsol"),
        (["--format", "wsol", "--normalize", "minmax"], "--normalize: cannot be used with --format wsol"),
    ],
)
def test_options_that_do_not_go_together(arguments, says, capsys):
    assert run("seeds", "voc", "--root", "nowhere", "--output", "seeds", *arguments) == 2
    assert says in capsys.readouterr().err


def test_arguments_that_do_not_go_together(path, seed):
    with pytest.raises(ValueError, match="dtype='int8': expects one of float32, float16"):
        save_seed(path, seed, dtype="int8")
    with pytest.raises(ValueError, match="high_res=False: applies only to format='irn', not to psa"):
        save_seed(path, seed, "psa", high_res=False)
    with pytest.raises(ValueError, match="dtype='float16': cannot be used with high_res=False"):
        write_seeds(None, Shapes(), path, dtype="float16", high_res=False)
    assert not path.exists()


def crf_scores(count, dtype=np.float32):
    """What PSA's CRF gives: at every pixel, the probabilities of the background and of each class."""
    logits = torch.rand(count + 1, *SIZE) * 6
    return logits.softmax(0).numpy().astype(dtype)


SAYS = "holds class scores after a dense CRF, not a seed: class 0 is the background"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("count", [1, 4])
def test_scores_after_a_crf_are_no_seed(path, count, dtype):
    scores = dict(zip([0, 3, 7, 15, 20], crf_scores(count, dtype), strict=False))
    np.save(path, scores)
    with pytest.raises(ValueError, match=rf"photo.npy: {SAYS}.* Give the seeds that they were made from"):
        load_seed(path)


def test_whether_scores_are_whole(path):
    path.write_bytes(encode_arrays(dict(zip([0, 3], crf_scores(1), strict=True))))
    assert is_whole_scores(path)
    assert not is_whole_seed(path)
    path.write_bytes(encode_arrays({0: np.ones(SIZE, np.float32)}))  # of a photo without classes
    assert is_whole_scores(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert not is_whole_scores(path)


def test_a_seed_of_the_first_class_is_one(path, seed):
    """Each map of a seed is divided by its own maximum, so that maps do not add up to 1."""
    save_seed(path, seed, "psa")
    assert load_seed(path).keys.tolist() == [0, 14]
    near = crf_scores(1) / crf_scores(1).max((1, 2))[:, None, None]  # scores, normalised as a seed is
    np.save(path, {0: near[0], 14: near[1]})
    assert load_seed(path).keys.tolist() == [0, 14]
    np.save(path, {3: near[0], 14: 1 - near[0]})  # adds up to 1, but nothing in it can be the background
    assert load_seed(path).keys.tolist() == [3, 14]


def test_a_folder_of_scores_is_refused_before_the_first_photo(colour_factory, capsys):
    root = make_voc(Path("data"))
    Path("crf").mkdir()
    for name in NAMES:
        Path("crf", f"{name}.npy").write_bytes(encode_arrays(dict(zip([0, 2], crf_scores(1), strict=True))))
    assert run("evaluate", "voc", "--root", root, "--seeds", "crf") == 2
    assert f"--seeds crf: crf/{NAMES[0]}.npy: {SAYS}" in capsys.readouterr().err
    assert run("label-maps", "crf", "--output", "labels") == 2
    assert f"crf/{NAMES[0]}.npy: {SAYS}" in capsys.readouterr().err
    assert not Path("labels").exists()
    # One among seeds fails alone.
    Path("crf", f"{NAMES[0]}.npy").unlink()
    save_seed(f"crf/{NAMES[0]}.npy", Seed(torch.tensor([1]), torch.rand(1, 11, 15), np.ones((1, 44, 60))), "psa")
    assert run("label-maps", "crf", "--output", "labels") == 1
    err = capsys.readouterr().err
    assert "5 of 6 seeds failed" in err
    assert SAYS in err
    assert [path.name for path in Path("labels").glob("*.png")] == [f"{NAMES[0]}.png"]


def test_our_own_scores_after_a_crf(colour_factory, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    root = make_voc(Path("data"))
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1,0.5", "--output", "seeds") == 0
    assert run("label-maps", "seeds", "--output", "crf", "--crf", "psa") == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "crf/alpha-4") == 2
    assert f"--seeds crf/alpha-4: crf/alpha-4/{NAMES[0]}.npy: {SAYS}" in capsys.readouterr().err
    assert run("label-maps", "seeds", "--output", "crf", "--crf", "psa", "--resume") == 0
    # PSA's own training reads them.
    labels = psa_affinity_labels(*(f"crf/alpha-{alpha}/{NAMES[0]}.npy" for alpha in (4, 24)))
    assert labels.shape == (44, 60)
    assert set(np.unique(labels)) <= {0, 1, 2, 255}
    assert len(np.unique(labels)) > 1


def test_protocol_of_score_maps(tmp_path):
    """Whatever the protocol says of size and normalisation, score maps are wsolevaluation's."""
    for number, protocol in enumerate((None, Protocol.wsol(), Protocol(normalize="max", upsample="photo"))):
        folder = tmp_path / str(number)
        write_seeds(colour_classifier(), Birds(), folder, protocol=protocol, show_progress=False)
    first, *others = (np.load(tmp_path / str(number) / f"{Birds.names[0]}.npy") for number in range(3))
    assert all(np.array_equal(first, other) for other in others)
