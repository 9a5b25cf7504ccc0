"""The sweep finds what is wrong with stages."""

import pytest
from examine import examine
from families import settled
from written_families import families

from captum_regioncam import Stages


@pytest.fixture
def found(monkeypatch):
    """Findings about a written network whose stages are given, in place of those that are found."""

    def findings(family, names, **options):
        built = settled(families()[family]())
        modules = {name: built.model.get_submodule(name) for name in names}
        monkeypatch.setattr("examine.find_stages", lambda *_: Stages(modules, **options))
        return examine(built)

    return findings


def test_right_stages(found):
    findings = found("written-image", ["stages.0", "stages.1", "stages.2"])
    assert (findings.stages, findings.outcome) == ("stages.0, stages.1, stages.2", "map")
    assert findings.faults == findings.notes == []


def test_a_stage_that_is_not_the_deepest(found):
    findings = found("written-image", ["stages.0", "stages.1"])
    assert findings.faults == ["stages.2.0 comes after stages.1", "stages.2.2 comes after stages.1"]


def test_features_after_a_stage_that_may_be_a_head(found):
    findings = found("written-image", ["stages.2.0"])
    assert findings.notes == ["stages.2.2 comes after stages.2.0"]
    assert findings.faults == []


def test_a_transform_that_flips_the_grid(found):
    findings = found("written-image", ["stages.1"], reshape_transform=lambda tensor: tensor.flip(2))
    assert [fault.split("%")[1] for fault in findings.faults] == [" of the positions answer to another place on axis 0"]


def test_a_transform_that_does_not_fit(found):
    findings = found("written-image", ["stages.1"], reshape_transform=lambda tensor: tensor.view(1, 2, 3))
    assert findings.faults[0].startswith("stages.1 cannot be brought onto its grid: shape '[1, 2, 3]' is invalid")


def test_a_grid_that_lost_an_axis(found):
    findings = found("written-image", ["stages.1"], reshape_transform=lambda tensor: tensor[:, :, :1])
    assert "stages.1 is read as 1 x 24, and 552 tokens are left out" in findings.faults


def test_an_auxiliary_head(found):
    findings = found("written-auxiliary-head", ["middle", "side.1"])
    assert "the score does not depend on side.1" in findings.faults


def test_a_network_without_a_stage(found, monkeypatch):
    def refuse(error):
        monkeypatch.setattr("examine.find_stages", lambda *_: (_ for _ in ()).throw(error))
        findings = examine(families()["written-mlp"]())
        assert findings.outcome == f"no stages: {error}"
        return [fault.split(":")[0] for fault in findings.faults]

    assert refuse(ValueError("inputs: there is no grid. Name the layers yourself.")) == []
    assert refuse(ValueError("there is no grid.")) == ["the message names no remedy"]
    assert refuse(ValueError("Name the layers\nyourself.")) == ["the message has several lines"]
    assert refuse(KeyError("x")) == ["find_stages raises KeyError"]


def test_the_last_of_several_calls(found):
    assert found("written-shared-block", ["middle", "block"]).outcome == "map; last call of four"
