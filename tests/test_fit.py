"Bases for a model that somebody has trained: it stays as it is, and what the bases carry of it is told."

import json, sys
import numpy as np, pandas as pd, pytest, torch
from torch import nn
from saliency_nb import cli, fitting, phases
from saliency_nb.bases import OriginalSaliency, build_model, load_checkpoint, save_checkpoint
from saliency_nb.core import CheckpointError, ParameterError
from saliency_nb.hosts import HOSTS
from saliency_nb.fit import fit
from saliency_nb.models import load_plugin
from saliency_nb.stages import Analysis
from saliency_nb.folders import recorded_parameters
from saliency_nb.fitting import (
    cc_with_people,
    compared_with_original,
    fit_bases,
    fit_sentence,
    fit_summary,
    fit_warning,
    softmax_warning,
)
from saliency_nb.world import make_world

PLUGIN = '''import torch
from torch import nn
from saliency_nb.hosts import register_host

class Theirs(nn.Module):
    dim, size = 6, (64, 96)
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.BatchNorm2d(6))
        self.classifier = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), READOUT)
        torch.manual_seed(3) # in place of a file of weights
        for p in self.parameters(): p.data = torch.randn_like(p) / p[0].numel()**.5
    def forward(self, images): return torch.relu(self.layers(images))
    def trained_readout(self): return self.classifier

register_host('theirs', Theirs)
'''
READOUTS = dict(
    small='nn.Conv2d(5, 1, 1)',
    wide='nn.Conv2d(5, 1, 3, padding=1)',
    plain='nn.Conv2d(5, 1, 3, padding="same", bias=False)',
)
FAST = dict(n_bases=8, batch=4, accelerator='cpu', min_images=1, top=2)


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    "And hosts of one test are not those of the next."
    whole = fitting.fit_bases
    monkeypatch.setattr(phases, 'fit_bases', lambda *args, **options: whole(*args, steps=100, **options))
    yield
    HOSTS.pop('theirs', None)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('fit') / 'world', n_images=16, size=(64, 96), seed=0)


def plugin(folder, readout='small'):
    (folder / 'theirs.py').write_text(PLUGIN.replace('READOUT', READOUTS.get(readout, readout)))
    return folder / 'theirs.py'


@pytest.mark.parametrize('readout', READOUTS)
def test_a_plugin_is_opened_as_it_is(readout, world, tmp_path):
    carried = fit(plugin(tmp_path, readout), world, tmp_path / 'run', **FAST)
    assert carried == json.loads((tmp_path / 'run/fit.json').read_text())
    assert carried['variance'][1] <= carried['variance'][0] <= carried['variance'][2]
    theirs, fitted = HOSTS['theirs'](), load_checkpoint(tmp_path / 'run/phase2/best.safetensors')
    mine = fitted.host.host.state_dict()
    assert all(torch.equal(v, mine[k]) for k, v in theirs.state_dict().items())  # BatchNorm's means, too
    first = load_checkpoint(tmp_path / 'run/phase1/best.safetensors')
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        wanted = theirs.eval().classifier(theirs(images))
        last = theirs.classifier[:-1](theirs(images))  # what their last convolution reads
        assert torch.equal(fitted.host(images), last / fitted.host.scale)
        found = nn.functional.conv2d(fitted.host(images), first.readout.weight, padding=1) + first.level
        assert torch.allclose(found, wanted, atol=1e-5)
        assert torch.allclose(first.logits(images), fitted.logits(images), atol=1e-4)  # phase 2 is phase 1


def run_command(*arguments): return cli.main(list(map(str, arguments)))


def test_stages_go_on_from_there(world, tmp_path, capsys):
    run, theirs = tmp_path / 'run', plugin(tmp_path)
    options = ['--n-bases', 8, '--batch', 4, '--min-images', 1, '--accelerator', 'cpu']
    assert run_command('fit', theirs, '--data', world, '--out', run, *options) == 0
    said = capsys.readouterr().out
    assert 'of the variance' in said and "CC with the original's prediction" in said and '64 x 96' in said
    picture = next((world / 'images').rglob('*.jpg'))
    predict = ['predict', picture, '--model', run, '--out', tmp_path / 'maps']
    for untrusting in (['thresholds', run], ['explore', run], ['report', run], predict):
        # the folder may be a stranger's
        (run / 'alignment.nc').touch()
        assert run_command(*untrusting) == 1
        assert '--plugin' in capsys.readouterr().err
    (run / 'alignment.nc').unlink()
    assert run_command(*predict, '--plugin', theirs) == 0
    assert run_command('thresholds', run, '--plugin', theirs) == 0
    capsys.readouterr()
    scores = Analysis(**recorded_parameters(run)).scores()
    assert set(scores.index.levels[0]) >= {'original', 'phase 2'}
    assert 'phase1: unchanged' in capsys.readouterr().out


UNFIT = [
    (('    def trained_readout(self): return self.classifier\n', ''), 'trained_readout'),
    (("register_host('theirs', Theirs)\n", ''), 'registers no host'),
    (('READOUT', 'nn.Conv2d(5, 1, 1), nn.Sigmoid()'), 'without an activation'),
    (('READOUT', 'nn.Conv2d(5, 2, 1)'), 'one channel'),
    (('READOUT', 'nn.Conv2d(5, 1, 5, padding=2)'), '1 x 1 or 3 x 3'),
    (('READOUT', 'nn.Conv2d(5, 1, 3)'), 'same size'),
]


@pytest.mark.parametrize('change, word', UNFIT, ids=lambda x: str(x)[:30])
def test_what_has_no_readout_to_take_is_refused(change, word, world, tmp_path, capsys):
    (tmp_path / 'theirs.py').write_text(PLUGIN.replace(*change).replace('READOUT', 'nn.Conv2d(5, 1, 1)'))
    code = run_command('fit', tmp_path / 'theirs.py', '--data', world, '--out', tmp_path / 'run')
    err = capsys.readouterr().err
    assert code == 1 and word in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / 'run/phase1').exists()


@pytest.fixture
def original(tmp_path):
    torch.manual_seed(0)
    model = build_model('dinet', phase=0, backbone='squeezenet1_0', width=4)
    return save_checkpoint(model, tmp_path / 'original.safetensors')


def test_a_checkpoint_is_opened_as_it_is(original, world, tmp_path):
    fit(original, world, tmp_path / 'run', height=64, width=96, **FAST)
    before = original.read_bytes()
    fitted, whole = load_checkpoint(tmp_path / 'run/phase2/best.safetensors'), load_checkpoint(original)
    theirs = fitted.host.host.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in whole.host.state_dict().items())
    assert original.read_bytes() == before
    with pytest.raises(CheckpointError, match='has bases already'):
        fit(tmp_path / 'run/phase1/best.safetensors', world, tmp_path / 'other')
    with pytest.raises(ParameterError, match='n_bases 8 .asked: 9'):
        fit(original, world, tmp_path / 'run', height=64, width=96, **FAST | dict(n_bases=9))
    original.unlink()  # the run has taken it
    assert Analysis(names=False, **recorded_parameters(tmp_path / 'run')).phase2()


class Linear(nn.Conv2d):
    "Features that are mixtures of a picture's colours."

    dim = 6

    def __init__(self):
        super().__init__(3, 6, 1)


def small_set(n=6):
    torch.manual_seed(1)
    return [dict(image=torch.randn(3, 8, 12), id=str(i)) for i in range(n)]


def correlation(a, b): return np.corrcoef(a.flatten(), b.flatten())[0, 1]


def test_the_numbers_are_those_of_their_definitions():
    torch.manual_seed(0)
    model = OriginalSaliency(Linear()).eval()
    fitted = fit_bases(model, small_set(), n_bases=16, steps=400)
    table = compared_with_original(model, fitted, small_set(), batch=4)
    with torch.no_grad():
        x = torch.stack([i['image'] for i in small_set()])
        a, b = model(x), fitted(x)
        v, r = fitted.host(x), fitted.read_out(x)
        share = 1 - (v - r).square().sum() / (v - v.mean((0, 2, 3), keepdim=True)).square().sum()
    assert np.allclose(table.cc, list(map(correlation, a, b)), atol=1e-4)
    assert np.allclose(table.cc_other[1:], list(map(correlation, a[:-1], b[1:])), atol=1e-4)
    assert np.isnan(table.cc_other.iloc[0])
    largest = [(mine - theirs).abs().max() / mine.max() for mine, theirs in zip(a, b)]
    assert np.allclose(table.difference, largest, atol=1e-5)
    found = fit_summary(table)['variance']
    assert abs(found[0] - float(share)) < 0.02 and found[1] < found[0] < found[2]


def test_bases_that_were_not_fitted_carry_nothing():
    "The world without the effect."
    torch.manual_seed(0)
    model = OriginalSaliency(Linear()).eval()
    fitted, random = (fit_bases(model, small_set(), n_bases=16, steps=s) for s in (400, 1))
    good, bad = (fit_summary(compared_with_original(model, f, small_set())) for f in (fitted, random))
    assert good['variance'][1] > 0.8 and bad['variance'][2] < 0.5
    assert good['cc'][1] > max(bad['cc'][0], good['cc_other'][2])


def test_run_says_that_it_trains_a_plugin(world, tmp_path, capsys, monkeypatch):
    theirs = plugin(tmp_path)
    monkeypatch.setattr(phases, 'train', lambda *args, **options: None)
    size = dict(height=64, width=96, batch=4)
    analysis = Analysis(names=False, data=world, out=tmp_path / 'run', model='theirs', plugin=theirs, **size)
    with pytest.raises(RuntimeError): analysis.phase1()  # nothing was trained
    said = capsys.readouterr().out
    assert 'TRAINED' in said and f'saliency-nb fit {tmp_path}/theirs.py' in said


@pytest.mark.parametrize('lost', [0.3, 0.021, 0.019, -0.1])
def test_a_bad_fit_is_not_passed_over_in_silence(lost):
    "With both numbers, and what to try."
    said = fit_warning(dict(original=0.6, fitted=0.6 - lost, images=40), 32)
    assert bool(said) == (lost > 0.02)
    wanted = '0.600', f'{0.6 - lost:.3f}', '40 selection images', '--n-bases 64', 'epochs'
    assert not said or all(w in said for w in wanted)
    assert not fit_warning({}, 32)  # of a run that was made before


def test_people_are_compared_with_both_networks():
    torch.manual_seed(0)
    model = OriginalSaliency(Linear()).eval()
    people = [dict(density=torch.rand(8, 12), fixations=torch.ones(8, 12)) for _ in range(6)]
    items = [item | looked for item, looked in zip(small_set(), people)]
    fitted = fit_bases(model, items, n_bases=2, steps=1)
    found = cc_with_people(model, fitted, items)
    x, people = (torch.stack([i[k] for i in items]) for k in ('image', 'density'))
    for name, network in dict(original=model, fitted=fitted).items():
        with torch.no_grad():
            each = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(network(x), people)]
        assert abs(found[name] - np.mean(each)) < 1e-4
    assert found['images'] == 6


def test_a_fit_says_what_it_lost_of_people(world, tmp_path, capsys, monkeypatch):
    people = dict(original=0.5, fitted=0.25, images=1)
    monkeypatch.setattr(phases, 'cc_with_people', lambda *args: people)
    found = fit(plugin(tmp_path), world, tmp_path / 'run', **FAST)
    assert found['people'] == people and 'CC 0.250 in place of 0.500' in capsys.readouterr().out
    assert 'may have been trained on them' in fit_sentence(found)


def test_what_a_plugin_needs_may_lie_beside_it(world, tmp_path, monkeypatch):
    (tmp_path / 'their_layers.py').write_text('SIZE = 3\n')
    file = tmp_path / 'importing.py'
    file.write_text('from their_layers import SIZE\n')
    monkeypatch.chdir(world)
    monkeypatch.setattr('sys.path', list(sys.path))
    load_plugin(file)


@pytest.mark.parametrize('softmax, said', [(.64, "resize = 'density'"), (.61, '')], ids=str)
def test_a_network_that_people_find_better_as_a_softmax(softmax, said, monkeypatch):
    "It is said, and nothing is changed."
    model = build_model('dinet', phase=0, backbone='squeezenet1_0', width=4)
    cc = dict(probability=.6, density=softmax)
    monkeypatch.setattr(fitting, 'evaluate', lambda m, _: pd.DataFrame(dict(cc=[cc[m.host.resize]])))
    assert said in softmax_warning(model, []) and bool(said) == bool(softmax_warning(model, []))
    assert model.host.resize == 'probability'
