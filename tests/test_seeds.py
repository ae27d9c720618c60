"""Several trainings on the same images: the seed of the training and that of the data are two things.

Families of trainings are compared as models.
"""
from pathlib import Path
import numpy as np, pandas as pd, pytest, xarray as xr
from nightly import NIGHTLY, noted
from saliency_nb import cli, runs
from saliency_nb.chance import FEWEST, q_values
from saliency_nb.contributions import effect_interval, mean_effect
from saliency_nb.core import DataError, read_json, rng
from saliency_nb.stages import Analysis
from saliency_nb.runs import family_of, results_of
from saliency_nb.uncertainty import (MARGIN, contrast_differences, contrast_effects,
                                     effect_differences, family_means, verdicts)
from saliency_nb.world import make_world

TINY = dict(height=64, width=96, features=8, n_bases=8, epochs=1, epochs2=1, batch=4, control=False,
            min_images=1, accelerator='cpu')
OPTIONS = ['--preset', 'tiny', '--model', 'dinet', *[f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]]

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('seeds')/'world', n_images=48, size=(64, 96), seed=0)

def stages(interrupted=False):
    "In place of the executed notebook: its stages, of which the second training is interrupted."
    def run(**parameters):
        if interrupted and parameters['seed']: raise KeyboardInterrupt
        Analysis(**parameters).contributions()
        return Path(parameters['out'])/'model.html'
    return run

@pytest.fixture(scope='module')
def home(world, tmp_path_factory):
    "A family of two, made by the command; the first time it is interrupted."
    folder = tmp_path_factory.mktemp('family')
    command = ['run', '--data', str(world), '--out', str(folder), '--seeds', '2', *OPTIONS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, 'run', stages(interrupted=True))
        assert cli.main(command) == 130 and not (folder/'seed_1/contributions.csv').exists()
        checkpoint = folder/'seed_0/phase1/best.safetensors'
        made = checkpoint.stat().st_mtime_ns
        patch.setattr(runs, 'run', stages())
        assert cli.main(command) == 0 and checkpoint.stat().st_mtime_ns == made
    return folder

def ids(analysis): return [s.ids for s in (analysis.found.train, analysis.found.select, analysis.found.val)]

def test_one_data_seed_means_the_same_images(world, tmp_path):
    runs = [Analysis(out=tmp_path/str(s), data=world, seed=s, **TINY) for s in (0, 1, 2)]
    assert ids(runs[0]) == ids(runs[1]) == ids(runs[2])
    other = Analysis(out=tmp_path/'other', data=world, seed=0, data_seed=1, **TINY)
    assert ids(other)[:2] != ids(runs[0])[:2]

def test_the_command_makes_a_family(home):
    runs = family_of(home)
    assert [r.name for r in runs] == ['seed_0', 'seed_1']
    alignments, adjusted = results_of(home)
    assert not np.allclose(*(a.contrast for a in alignments)) # two trainings
    over = family_means(contrast_effects(alignments))
    summary = pd.read_csv(home/'family.csv').set_index('semantic')
    assert np.isfinite(over['mean']).all() and np.allclose(summary.contrast, over['mean'][summary.index])
    assert {'low_images', 'high_seeds', 'adjusted', 'adjusted_low'} <= set(summary)
    single = contrast_differences(*alignments)
    assert set(single.index) == set(over.index) and 'q_value' not in single
    both = contrast_differences(alignments, alignments[::-1])
    assert (both.difference == 0).all() and (both.q_value.dropna() == 1).all()
    assert 'verdict' not in effect_differences(*adjusted)
    assert 'verdict' in effect_differences(adjusted, adjusted)

def test_single_images_and_their_parts_say_the_same(home):
    alignments = results_of(home)[0]
    in_parts = [a.drop_vars('image_contrast') for a in alignments]
    for image, part in zip(contrast_effects(alignments), contrast_effects(in_parts)):
        xr.testing.assert_allclose(image, part)

NO_FAMILY = [
    (['--seeds', '1'], 'two'),
    (['--seeds', 'few'], 'seeds'),
    (['--seeds', '2', '--seed', 'x'], 'seed'),
    (['--seeds', '2', '--checkpoint', 'WORLD'], 'checkpoint'),
    (['--seeds', '2', '--out', 'MEMBER'], 'single'),
]

@pytest.mark.parametrize('wrong, word', NO_FAMILY, ids=str)
def test_what_is_no_family_is_refused(wrong, word, home, world, tmp_path, capsys):
    places = dict(WORLD=str(world), MEMBER=str(home/'seed_0'))
    options = [places.get(option, option) for option in wrong]
    assert cli.main(['run', '--data', str(world), '--out', str(tmp_path/'run'), *options]) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and word in said, said

def test_trainings_of_other_settings_are_no_family(world, tmp_path):
    Analysis(out=tmp_path/'odd/seed_0', data=world, **TINY)
    Analysis(out=tmp_path/'odd/seed_1', data=world, **TINY | dict(epochs=2))
    with pytest.raises(DataError, match='epochs'): family_of(tmp_path/'odd')

def test_verdicts():
    "Equivalence needs an interval within the margin; an interval around zero that is wide is no proof of it."
    cases = {
        'more': (.3, .2, .4, .01),
        'less': (-.3, -.4, -.2, .01),
        'equivalent': (.05, .02, .08, .001),
        'not known': (.3, .1, .5, .2),
    }
    table = pd.DataFrame(cases, ['difference', 'low', 'high', 'q_value']).T
    assert list(verdicts(table)) == list(cases)
    assert verdicts(table.loc[['equivalent']].assign(high=MARGIN + .01)) == ['more']
    assert verdicts(table.loc[['not known']] * np.nan) == ['not known']

# Simulated comparisons, with variances of ten real small runs (bench/seeds.py)

COMPARISONS = 500 if NIGHTLY else 100
FOLDS = 200

def spreads(what):
    "Of contrasts or adjusted effects: value, seeds, images, own (nats), n; names that have an interval."
    path = Path(__file__).resolve().parent.parent/'bench/seeds.json'
    known = read_json(path)[what]['names']
    table = pd.DataFrame(known).T
    return table[table.n >= FEWEST]

def column(values): return values.to_numpy()[:, None]

def sums_of(table, g, shared, runs=5):
    """Sums over images of `runs` trainings, and their counts.

    Value, level of the training, what the images are for all, what this training makes of them.
    """
    n = column(table.n).astype(int)
    here = np.arange(FOLDS) < n
    level = g.normal(size=(runs, len(table), 1)) * column(table.seeds)
    own = g.normal(size=(runs, len(table), FOLDS)) * column(table.own) * np.sqrt(n)
    return list((column(table.value) + level + shared + own) * here), here.astype(float)

def images_of(table, g):
    return g.normal(size=(len(table), FOLDS)) * column(table.images) * np.sqrt(column(table.n))

def compared(table, g, alike, planted=None, runs=5):
    """Two families of one kind, with .3 nat in one name of the first and without.

    Where they are not alike, they do not even agree on images.
    """
    shared = images_of(table, g)
    first, counts = sums_of(table, g, shared, runs)
    second, _ = sums_of(table, g, shared if alike else images_of(table, g), runs)
    effects = [mean_effect(s, counts, list(table.index)) for s in first + second]
    null = effect_differences(effects[:runs], effects[runs:])
    raised = [e.assign(effect=e.effect + .3 * (e.semantic == planted)) for e in effects[:runs]]
    return null, effect_differences(raised, effects[runs:])

ALIKE = {True: 'images alike', False: 'images apart'}

@pytest.mark.parametrize('alike', [True, False] if NIGHTLY else [True], ids=ALIKE.get)
@pytest.mark.parametrize('what', ['contrast', 'adjusted'])
def test_level_and_power_of_comparisons_of_families(what, alike):
    table, seen = spreads(what), []
    for r in range(COMPARISONS):
        name = table.index[r % len(table)]
        null, planted = compared(table, rng(r, 'families', what, str(alike)), alike, name)
        seen.append(dict(
            any_difference_of_one_kind=(null.q_value < .05).any(),
            planted_found=planted.verdict[name] == 'more',
            found_equivalent_of_one_kind=(null.verdict == 'equivalent').mean(),
            planted_called_equivalent=planted.verdict[name] == 'equivalent',
        ))
    share = pd.DataFrame(seen).mean()
    noted(f'families of five, {what}, {ALIKE[alike]}', comparisons=COMPARISONS, **share)
    chance = 0 if NIGHTLY else 2 * (.05 * .95 / COMPARISONS)**.5
    assert share.any_difference_of_one_kind <= .07 + chance and share.planted_called_equivalent <= .05
    # .3 nat, over all names; on different images fewer are found, and that is reported
    if alike: assert share.planted_found >= .8

def test_single_trainings_of_one_kind_differ_and_families_do_not():
    "Between single trainings the test over images alone has small q-values; they are not about the kind."
    table = spreads('contrast')
    single, families = [], []
    for r in range(10):
        g = rng(r, 'single')
        sums, counts = sums_of(table, g, images_of(table, g), runs=2)
        difference = mean_effect(sums[0] - sums[1], counts, list(table.index))
        q = q_values(effect_interval(difference)[2])
        single.append((q < .05).mean())
        families.append((compared(table, g, alike=True)[0].q_value < .05).mean())
    print(f'names at q < .05: single trainings {np.mean(single):.0%}, families {np.mean(families):.1%}')
    assert np.mean(single) > .25 and np.mean(families) < .03
