"""Commands for people who do not train.

Predictions for any picture, scores for anybody's maps, what attracts people, one photograph explained.
"""
import os, shutil, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch, xarray as xr
from PIL import Image
from scipy.io import savemat
from saliency_nb import core
from saliency_nb.attraction import attraction, named_images
from saliency_nb.hosts import resized
from saliency_nb.pictures import normalised
from saliency_nb.bases import build_model, initialise, save_checkpoint
from saliency_nb.calibration import calibrate, logit_maps
from saliency_nb.cli import main
from saliency_nb.fixation_readers import read_fixations
from saliency_nb.fixations import SaliencyDataset
from saliency_nb.models import ZOO, load_model, models
from saliency_nb.photographs import GATE, POSITION, explained, names_certain, page
from saliency_nb.predict import (Known, density_of, maps_by_id, predict, predict_files, saliency_of, score,
                                 summary, upright, write_map)
from saliency_nb.inputs import exchanged
from saliency_nb.training import METRICS, evaluate, train
from saliency_nb.world import make_world

sys.path.append(str(Path(__file__).resolve().parent.parent/'tools'))
from zoo import BESIDE, MOST, add_probe_to_zoo, mean_scores, save_to_zoo

SIZE = 96, 128

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('predict')/'world', n_images=48, size=SIZE, seed=3)

@pytest.fixture(scope='module')
def run(tmp_path_factory, world):
    "What predict and explain need of a run: a readout that means nothing, with names dealt out at random."
    run = tmp_path_factory.mktemp('run')
    torch.manual_seed(0)
    model = build_model('readout', backbone='squeezenet1_0', n_bases=12, phase=2)
    images = SaliencyDataset(read_fixations(world, split='val'), SIZE)
    model.start(torch.stack([images.image(i) for i in range(4)]))
    torch.nn.init.normal_(model.readout.weight, std=.3)
    save_checkpoint(model.eval(), run/'phase2/best.safetensors')
    parameters = dict(model='readout', height=SIZE[0], width=SIZE[1], data='/home/me/world')
    core.write_json(dict(parameters=parameters, stages={}), run/'run.json')
    core.write_json(dict(network=dict(tau=1., bits=.5)), run/'calibration.json')
    pairs, names = ('basis', 'semantic'), ['face', 'text', 'sky', 'cloudy', '<script>alert(1)</script>']
    iou = np.random.default_rng(1).random((12, 5)) * .3
    found = dict(iou=(pairs, iou), chance_iou=(pairs, np.full((12, 5), .1)))
    xr.Dataset(found, dict(semantic=names), dict(tau=1.)).to_netcdf(run/'alignment.nc', engine='h5netcdf')
    return run

@pytest.fixture(scope='module')
def zoo(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp('zoo')
    save_to_zoo(run, 'small', folder, what='nothing', licence='MIT')
    return folder

@pytest.fixture
def photos(tmp_path, world):
    "A picture, one upright, one in a folder of another size, and one broken."
    source = sorted((world/'images/val').iterdir())[0]
    turned, folder = Image.Exif(), tmp_path/'photos'
    turned[0x0112] = 6
    (folder/'holiday').mkdir(parents=True)
    Image.open(source).save(folder/'a.jpg', exif=turned)
    Image.open(source).resize((400, 200)).save(folder/'holiday/b.png')
    (folder/'holiday/broken.jpg').write_bytes((folder/'a.jpg').read_bytes()[:300])
    return folder

def said(capsys, *arguments):
    "Exit code, stdout, stderr of a command in this process."
    try: code = main([str(a) for a in arguments])
    except SystemExit as e: code = e.code
    shown = capsys.readouterr()
    return SimpleNamespace(code=code, out=shown.out, err=shown.err)

def refused(capsys, *arguments):
    "The sentence of a command that fails with one."
    done = said(capsys, *arguments)
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1, done.err
    return done.err

LIGHT = '''import contextlib, io, sys
from saliency_nb.cli import main
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try: main(line.split())
        except SystemExit: pass
heavy = 'torch', 'pandas', 'papermill', 'numpy', 'cv2', 'lightning', 'matplotlib'
print([m for m in heavy if m in sys.modules])'''

def test_what_needs_no_network_imports_none():
    lines = ('--help', '--version', 'predcit', 'download --list', 'models', 'run --help', 'predict --help',
             'run --epcohs 3 --out x', 'predict')
    env = os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, '-c', LIGHT, *lines], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr

ALONE = '''import sys
rest = 'lightning tensorboard jupyterlab IPython ipywidgets papermill nbconvert nbformat seaborn sklearn'
sys.modules |= dict.fromkeys(rest.split())
from saliency_nb.cli import main
sys.exit(main(sys.argv[1:]))'''

def test_explaining_needs_neither_trainer_nor_jupyter(photos, tmp_path):
    "With them not to be had, the core alone explains a photograph."
    command = 'explain', photos/'a.jpg', '--model', 'world', '--out', tmp_path
    env = core.os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, '-c', ALONE, *command], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and list(tmp_path.glob('*.html')), done.stdout + done.stderr

@pytest.mark.parametrize('written, meant', [
    ('predcit', 'predict'),
    ('chek-data', 'check-data'),
    ('run --out x --epcohs 3', '--epochs'),
    ('predict a --out x --overly', '--overlay'),
])
def test_misspelt_words_get_a_suggestion(capsys, written, meant):
    assert f'did you mean {meant}?' in refused(capsys, *written.split())

def test_a_model_survives_the_zoo(run, zoo, world):
    whole, small = load_model(run), load_model('small', zoo)
    assert small.size == whole.size == SIZE and small.tau == whole.tau == 1
    path = sorted((world/'images/val').iterdir())[0]
    a, b = predict(whole, path), predict(small, path)
    assert 0 < abs(a - b).sum() < .02 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > .9999
    assert models(zoo)['small']['licence'] == 'MIT'
    assert '/home/me' not in (zoo/'small/card.json').read_text()
    save_to_zoo(run, 'small', zoo, what='a readout') # anew: what was said by hand stays
    assert models(zoo)['small']['licence'] == 'MIT' and models(zoo)['small']['what'] == 'a readout'
    own = (zoo/'small/model.safetensors').stat().st_size
    assert own < (zoo/'backbone.safetensors').stat().st_size / 10
    save_to_zoo(run, 'second', zoo)
    assert set(models(zoo)) == {'small', 'second'}
    shutil.rmtree(zoo/'second')

def test_another_backbone_is_refused(run, zoo, tmp_path):
    other = tmp_path/'run'
    shutil.copytree(run, other)
    torch.manual_seed(1)
    model = build_model('readout', backbone='squeezenet1_0', n_bases=12, phase=2)
    save_checkpoint(model, other/'phase2/best.safetensors')
    with pytest.raises(core.ParameterError, match='another backbone'): save_to_zoo(other, 'other', zoo)
    assert set(models(zoo)) == {'small'}

def dissection(run, weight):
    "As much of a second run as the zoo takes."
    nothing = ('basis', 'semantic'), np.zeros((len(weight), 2))
    tables = dict.fromkeys(('iou', 'chance_iou', 'q_value', 'contrast'), nothing)
    tables |= dict(weight=('basis', weight), prior=('semantic', np.zeros(2)))
    found = xr.Dataset(tables, dict(semantic=['sky', 'road']))
    found.to_netcdf(core.writable_folder(run)/'alignment.nc', engine='h5netcdf')
    for file in BESIDE: (run/file).write_text('{}')
    return run

def test_a_second_run_goes_beside_its_model_and_one_of_another_does_not(tmp_path):
    dissection(tmp_path/'zoo/small', np.arange(8.))
    add_probe_to_zoo(dissection(tmp_path/'second', np.arange(8.)), 'small', 'coco', tmp_path/'zoo')
    assert {f.name for f in (tmp_path/'zoo/small/coco').iterdir()} == {'alignment.nc', *BESIDE}
    for weight in (np.ones(8), np.arange(7.)):
        with pytest.raises(core.CheckpointError, match='another model than small'):
            add_probe_to_zoo(dissection(tmp_path/'other', weight), 'small', 'more', tmp_path/'zoo')

def test_a_card_has_the_mean_scores_of_phase_2(tmp_path):
    scores = pd.DataFrame(dict(model=['phase 2'] * 3 + ['phase 1'], image=list('abca'), cc=[.5, .6, .7, 0]))
    scores.to_csv(tmp_path/'scores.csv', index=False)
    found = mean_scores(tmp_path)
    assert found['images'] == 3 and abs(found['scores']['cc']['mean'] - .6) < 1e-9

def test_models_of_the_package_load_and_are_small():
    assert sum(f.stat().st_size for f in ZOO.rglob('*') if f.is_file()) <= MOST
    for name, card in models().items():
        assert card['licence'] and card['data'] and card['scores']
        assert load_model(name).size == tuple(card['size'])

@pytest.fixture
def mapped(run, photos, tmp_path, capsys):
    "A folder of maps of photos, one of which is broken."
    done = said(capsys, 'predict', photos, '--model', run, '--out', tmp_path/'maps', '--overlay')
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1
    assert '1 pictures' in done.err and 'broken.jpg' in done.out
    return tmp_path/'maps'

@pytest.mark.parametrize('name, size', [('a', (128, 96)), ('holiday/b', (200, 400))]) # a is upright
def test_maps_have_size_and_name_of_their_pictures(mapped, name, size):
    with Image.open(mapped/f'{name}.png') as grey:
        assert grey.size[::-1] == size and grey.mode.startswith('I') and np.asarray(grey).max() == 65535
    with Image.open(mapped/f'overlay/{name}.jpg') as shown: assert shown.size[::-1] == size

def test_maps_that_are_there_are_not_made_again(mapped, run, photos, tmp_path, capsys):
    before = (mapped/'a.png').stat().st_mtime_ns
    (photos/'holiday/broken.jpg').unlink()
    done = said(capsys, 'predict', photos, '--model', run, '--out', mapped, '--overlay')
    assert done.code == 0 and '2 of 2 maps are there already' in done.out
    other = build_other(tmp_path)
    assert 'another model' in refused(capsys, 'predict', photos, '--model', other, '--out', mapped)
    assert (mapped/'a.png').stat().st_mtime_ns == before

def test_arrays_have_the_size_of_their_pictures_and_sum_to_one(run, photos, tmp_path, capsys):
    options = ['--model', run, '--out', tmp_path/'arrays', '--format', 'npy']
    assert said(capsys, 'predict', photos/'a.jpg', *options).code == 0
    found = np.load(tmp_path/'arrays/a.npy')
    assert found.shape == (128, 96) and abs(found.sum(dtype=float) - 1) < 1e-4

@pytest.fixture(scope='module')
def sigmoid_run(world, tmp_path_factory):
    "A run of a model that ends in a sigmoid, trained with the published loss, and its tau."
    run = tmp_path_factory.mktemp('sigmoid')
    learned, others = (SaliencyDataset(read_fixations(world, split=s), SIZE) for s in ('train', 'val'))
    torch.manual_seed(0)
    model = build_model('dinet', backbone='squeezenet1_0', width=8, n_bases=8)
    initialise(model, torch.stack([learned.image(i) for i in range(8)]))
    model = train(model, learned, others, run/'phase1', epochs=3, batch=6, lr=1e-3, say=lambda *_: None)
    save_checkpoint(model.to_phase2(), run/'phase2/best.safetensors')
    parameters = dict(model='dinet', height=SIZE[0], width=SIZE[1], data=str(world))
    core.write_json(dict(parameters=parameters, stages={}), run/'run.json')
    fitted = calibrate(*logit_maps(model, torch.utils.data.Subset(others, range(4))))
    core.write_json(dict(network=fitted), run/'calibration.json')
    return run

def test_the_calibrated_density_predicts_no_worse_than_saliency(sigmoid_run, world, tmp_path, capsys):
    "On images that tau was not fitted to; both rank places alike."
    val = read_fixations(world, split='val')
    unseen = val.subset(val.ids[4:])
    pictures = [str(path) for path in unseen.images.path]
    found = {}
    for form in ('png', 'npy'):
        command = 'predict', *pictures, '--model', sigmoid_run, '--out', tmp_path/form, '--format', form
        assert said(capsys, *command).code == 0
        table, _ = score(tmp_path/form, unseen)
        found[form] = table[table.prediction == 'maps'].set_index('image')
    assert len(found['npy']) == len(unseen) > 0
    assert found['npy'].information_gain.mean() > found['png'].information_gain.mean()
    assert abs(found['npy'].auc_judd - found['png'].auc_judd).max() < .02

def test_density_and_saliency_rise_with_the_same_logit(sigmoid_run, world):
    "And the density does not ask how large a logit is."
    model = load_model(sigmoid_run)
    model.upsampling = 'nearest' # each pixel has the logit of one cell
    rgb = upright(sorted((world/'images/val').iterdir())[0])
    with torch.no_grad(): z = model.logits(normalised(rgb, SIZE)[None])
    z = resized(z[:, None], SIZE, 'nearest').double().flatten()
    density, saliency = (of(model, rgb).ravel() for of in (density_of, saliency_of))
    assert np.allclose(density, torch.softmax(model.tau * z, 0), rtol=1e-4)
    for values in (density, saliency):
        assert (np.diff(values[z.argsort()]) >= 0).all() and np.ptp(values) > 0
    model.readout.weight.data *= 3
    model.tau /= 3
    assert np.allclose(density_of(model, rgb).ravel(), density, rtol=1e-3)
    assert abs(saliency_of(model, rgb).ravel() - saliency).sum() > .1

def test_without_a_tau_of_its_own_a_model_gives_its_own_map(sigmoid_run, world, tmp_path, capsys):
    "A checkpoint by itself, and one of a run whose tau was fitted to another phase."
    path = sorted((world/'images/val').iterdir())[0]
    shutil.copy(sigmoid_run/'phase2/best.safetensors', tmp_path/'alone.safetensors')
    shutil.copytree(sigmoid_run, tmp_path/'run')
    (tmp_path/'run/calibration.json').unlink()
    for place in (tmp_path/'run', sigmoid_run/'phase1/best.safetensors'):
        model = load_model(place)
        assert not model.calibrated and model.tau == 1
        assert (density_of(model, upright(path)) == saliency_of(model, upright(path))).all()
    assert not load_model(tmp_path/'alone.safetensors').calibrated and load_model(sigmoid_run).calibrated
    command = 'predict', path, '--out', tmp_path/'maps', '--format', 'npy', '--model'
    assert said(capsys, *command, tmp_path/'run').code == 0
    again = said(capsys, *command, sigmoid_run) # the same weights, and now a tau
    assert again.code == 1 and 'other options' in again.err

def test_overlays_are_no_maps(run, photos, tmp_path, capsys):
    said(capsys, 'predict', photos, '--model', run, '--out', tmp_path/'maps', '--overlay')
    assert (tmp_path/'maps/overlay/a.jpg').is_file() and set(maps_by_id(tmp_path/'maps')) == {'a', 'b'}

def build_other(folder):
    torch.manual_seed(2)
    model = build_model('dinet', backbone='squeezenet1_0', width=8, n_bases=4, phase=2)
    return save_checkpoint(model, folder/'other.safetensors')

def test_arrays_pictures_and_paths_are_one(run, photos):
    model = load_model(run)
    path = photos/'holiday/b.png'
    rgb = np.asarray(Image.open(path).convert('RGB'))
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    found = predict(model, [path, str(path), Image.open(path), rgb, rgb / 255., opaque])
    assert all(abs(f - found[0]).max() < 1e-6 for f in found)
    grey = rgb[..., 0]
    assert abs(predict(model, grey) - predict(model, np.dstack([grey] * 3))).max() < 1e-9
    for tiny in (np.zeros((1, 1), np.uint8), np.zeros((3, 900, 3), np.uint8)):
        assert predict(model, tiny).shape == tiny.shape[:2]
    for wrong in (np.zeros((4, 5, 2)), np.zeros(7), np.full((4, 5), 300)):
        with pytest.raises(core.DataError): predict(model, wrong)

def test_predictions_have_the_scores_of_the_run(run, world):
    "What a card says of a model is what its predictions get."
    data, model = SaliencyDataset(read_fixations(world, split='val'), SIZE), load_model(run)
    expected = evaluate(model, data)
    for i, path in data.set.images.path.head(5).items():
        item = data[data.ids.index(i)]
        found = torch.from_numpy(predict(model, path))[None]
        for name, metric in METRICS.items():
            known = item['density' if name in ('cc', 'kld', 'sim') else 'fixations'][None]
            assert abs(float(metric(found, known)) - expected.loc[i, name]) < 2e-3, name

def test_a_centre_bias_is_not_counted_twice(run, photos, tmp_path, capsys):
    options = ['--model', run, '--out', tmp_path/'x', '--centre-bias']
    done = said(capsys, 'predict', photos/'a.jpg', *options)
    assert done.code == 1 and 'twice' in done.err
    other = load_model(build_other(tmp_path))
    plain, centred = predict(other, photos/'a.jpg'), predict(other, photos/'a.jpg', centre=.2)
    middle = slice(32, 96), slice(24, 72)
    assert centred[middle].sum() > 1.5 * plain[middle].sum() and abs(centred.sum() - 1) < 1e-4

def test_two_pictures_with_one_result_are_refused(run, photos, tmp_path):
    shutil.copy(photos/'a.jpg', photos/'a.jpeg')
    model = load_model(run)
    with pytest.raises(core.ParameterError, match='one result'): predict_files(model, [photos], tmp_path/'x')

@pytest.fixture(scope='module')
def val(world):
    found = read_fixations(world, split='val')
    return found.subset(found.ids[:8])

def test_maps_of_every_kind_get_the_same_scores(val, tmp_path):
    g = np.random.default_rng(0)
    for i in val.ids[:4]:
        found = g.random(SIZE)
        write_map(found, tmp_path/'png'/f'{i}.png')
        write_map(found, tmp_path/'npy/deeper'/f'{i}.npy')
        (tmp_path/'mat').mkdir(exist_ok=True)
        savemat(tmp_path/'mat'/f'{i}.mat', dict(map=found, note='a map', scale=2.))
    tables = {}
    for kind in ('png', 'npy', 'mat'):
        table, notes = score(tmp_path/kind, val)
        assert f'{len(val) - 4} images have no map' in notes and not any('resized' in n for n in notes)
        tables[kind] = table.set_index(['prediction', 'image'])
    pd.testing.assert_frame_equal(tables['npy'], tables['mat'])
    assert abs(tables['png'] - tables['npy']).max().max() < 2e-3

def test_the_bound_is_of_other_observers_only(val):
    "The fixations of an observer must not be among those that predict them, or the bound would be too high."
    known = Known(val)
    own, others = known.observers(val.ids[0], most=99)
    counts = known.image(val.ids[0])['points']
    assert np.allclose(own.sum(0), counts) and len(own) > 2
    far = np.argwhere(counts == 1)[0] # a fixation that only one made
    who = int(np.argmax(own[:, far[0], far[1]]))
    rest = own.sum(0) - own[who]
    assert np.allclose(others[who], known.blurred(rest, val.images.iloc[0]))

def test_scores_of_maps_that_know_and_of_maps_that_do_not(val, tmp_path):
    "Densities of the same image beat those of other images; exchanged ones do not."
    known = Known(val)
    maps = {i: known.image(i)['density'] for i in val.ids}
    for i, j in zip(val.ids, np.roll(val.ids, 1)):
        write_map(maps[i], tmp_path/'own'/f'{i}.png')
        write_map(maps[j], tmp_path/'exchanged'/f'{i}.png')
    def beyond_other_images(folder): return summary(score(folder, val)[0]).loc['maps minus other images'].nss
    own, other = beyond_other_images(tmp_path/'own'), beyond_other_images(tmp_path/'exchanged')
    assert own['mean'] > 4 * own.standard_error and other['mean'] < 2 * other.standard_error

NO_MAPS = dict(
    nan=np.full(SIZE, np.nan),
    negative=-np.ones(SIZE),
    deep=np.ones((3, 4, 5)),
    text=np.array(['a']),
)

@pytest.mark.parametrize('kind', NO_MAPS)
def test_maps_that_are_none_are_one_sentence(kind, val, world, tmp_path, capsys):
    i = val.ids[0]
    np.save(tmp_path/f'{i}.npy', NO_MAPS[kind])
    assert f'{i}.npy' in refused(capsys, 'score', tmp_path, '--data', world)

def test_two_maps_of_one_image_are_one_sentence(val, world, tmp_path, capsys):
    for ending in ('png', 'npy'): write_map(np.ones(SIZE), tmp_path/f'{val.ids[0]}.{ending}')
    done = said(capsys, 'score', tmp_path, '--data', world)
    assert done.code == 1 and 'two maps of one image' in done.err

def test_predict_then_score(run, world, tmp_path, capsys):
    done = said(capsys, 'predict', world/'images/val', '--model', run, '--out', tmp_path/'maps')
    assert done.code == 0
    done = said(capsys, 'score', tmp_path/'maps', '--data', world, '--out', tmp_path/'scores')
    assert done.code == 0 and 'other observers' in done.out and 'standard error' in done.out
    table = pd.read_csv(tmp_path/'scores/scores.csv', dtype=dict(image=str))
    expected = evaluate(load_model(run), SaliencyDataset(read_fixations(world, split='val'), SIZE)).nss
    found = table[table.prediction == 'maps'].set_index('image').nss
    assert len(found) == len(expected) and abs(found - expected).max() < .01

def test_what_attracts_people_vanishes_with_the_fixations_of_other_images(world):
    seen, regions = named_images(world, read_fixations(world, split='train'))
    def certain(fixations):
        table, _ = attraction(fixations, regions, (24, 32))
        known = table.low.notna()
        return ((table.low > 0) | (table.high < 0))[known].mean()
    assert certain(seen) > .5 > .25 > certain(exchanged(seen))

def test_people_command(world, tmp_path, capsys):
    done = said(capsys, 'people', world, '--out', tmp_path/'people')
    table = pd.read_csv(tmp_path/'people/people.csv', index_col='semantic')
    written = {f.name for f in (tmp_path/'people').iterdir()}
    assert done.code == 0 and 'images and observers' in done.out
    assert {'people.csv', 'people.nc', 'people.png'} <= written
    planted = pd.read_csv(world/'truth.csv').set_index('semantic').weight.reindex(table.index)
    assert table.effect.corr(planted, method='spearman') > .8

def test_an_explanation_adds_up_and_names_are_escaped(run, photos):
    found = explained(run, photos/'holiday/b.png', box=(100, 50, 200, 120))
    parts = (found.table.on_here + found.table.off_here).sum()
    assert found.table.effect.sum() == pytest.approx(parts, abs=1e-4)
    assert POSITION in found.table.index and found.density.shape == found.rgb.shape[:2] == (200, 400)
    shown = page(found, '<script>')
    assert '<script>' not in shown and '&lt;script&gt;alert(1)' in shown and GATE[False] in shown

def test_an_explanation_shows_the_calibrated_density(run, photos, tmp_path):
    other = tmp_path/'run'
    shutil.copytree(run, other)
    core.write_json(dict(network=dict(tau=.1, bits=.5)), other/'calibration.json')
    core.write_arrays(core.read_arrays(run/'alignment.nc').assign_attrs(tau=.1), other/'alignment.nc')
    model, rgb = load_model(other), upright(photos/'a.jpg')
    found = explained(model, rgb).density
    assert np.allclose(found, density_of(model, rgb), rtol=1e-3)
    assert abs(found - saliency_of(model, rgb)).sum() > .05

@pytest.mark.parametrize('name, size', [('a.jpg', (128, 96)), ('holiday/b.png', (200, 400))])
def test_the_region_is_where_the_picture_was_pointed_at(run, photos, name, size):
    "Upright, and in the corner of a wide picture: pixels of the picture, not of the padded image."
    model, (height, width) = load_model(run), size
    for fy, fx in ((.1, .1), (.6, .9)):
        region = explained(model, photos/name, at=(fx * width, fy * height)).region
        places = (np.argwhere(region) + .5).mean(0) / region.shape
        assert (abs(places - (fy, fx)) < .15).all(), (fy, fx)

def test_a_picture_thinner_than_a_cell_is_one_sentence(run):
    with pytest.raises(core.ParameterError, match='larger picture'):
        explained(run, np.zeros((3, 900, 3), np.uint8))

GATES = {'{"open": true}': True, '{"open": false}': False, '{"open": "yes"}': False, '[]': False}

def test_the_gate_of_the_units_analysis_is_read(run, photos, tmp_path):
    other = tmp_path/'run'
    shutil.copytree(run, other)
    for text, certain in GATES.items():
        (other/'units.json').write_text(text)
        assert names_certain(other) is certain
    (other/'units.json').write_text('{"open": true}')
    assert GATE[True] in page(explained(other, photos/'a.jpg'), 'a')

def empty_folder(folder):
    (folder/'nothing').mkdir()
    return folder/'nothing'

def missing_path(folder): return folder/'nowhere'

def text_file(folder):
    (folder/'a.txt').write_text('text')
    return folder/'a.txt'

WRONG = { # command -> its arguments, in which PATH is wrong
    'predict': 'PATH --model RUN --out OUT',
    'explain': 'PATH --model RUN --out OUT',
    'score': 'PATH --data PATH',
    'people': 'PATH --out OUT',
    'models': 'PATH',
    'check-data': 'PATH --out OUT',
    'train': '--data PATH --out OUT',
    'report': 'PATH',
    'compare': 'PATH --out OUT',
    'explore': 'PATH',
}

@pytest.mark.parametrize('command', WRONG)
@pytest.mark.parametrize('wrong', [missing_path, empty_folder, text_file], ids=lambda f: f.__name__)
def test_wrong_paths_are_one_sentence(command, wrong, run, tmp_path, capsys):
    places = dict(PATH=wrong(tmp_path), RUN=run, OUT=tmp_path/'out')
    done = said(capsys, command, *[places.get(word, word) for word in WRONG[command].split()])
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1, done.err
    assert done.err.startswith('saliency-nb: ') and 'Traceback' not in done.out

@pytest.mark.parametrize('command', ['predict', 'explain', 'people', 'check-data', 'score'])
def test_a_file_as_out_is_one_sentence(command, run, world, photos, tmp_path, capsys):
    (tmp_path/'file').write_text('mine')
    pictures = [photos, '--model', run]
    arguments = dict(predict=pictures, explain=pictures, score=[photos, '--data', world])
    err = refused(capsys, command, *arguments.get(command, [world]), '--out', tmp_path/'file')
    assert 'cannot be written into' in err and (tmp_path/'file').read_text() == 'mine'

@pytest.mark.parametrize('command', ['predict', 'explain'])
def test_missing_and_damaged_models_are_one_sentence(command, zoo, photos, tmp_path, capsys, monkeypatch):
    broken = tmp_path/'zoo'
    shutil.copytree(zoo, broken)
    monkeypatch.setattr('saliency_nb.models.ZOO', broken)
    def fails(model):
        err = refused(capsys, command, photos/'a.jpg', '--model', model, '--out', tmp_path/'x')
        assert err.startswith('saliency-nb: '), err
        return err
    assert 'small' in fails('smal') # what there is
    for path in (text_file, empty_folder, missing_path): fails(path(tmp_path))
    for file in ('small/model.safetensors', 'backbone.safetensors', 'small/card.json', 'small/alignment.nc'):
        if file.endswith('.nc') and command == 'predict': continue # which does without
        whole = (broken/file).read_bytes()
        for content in (b'', whole[:len(whole) // 2], b'[1, 2]'):
            (broken/file).write_bytes(content)
            fails('small')
        (broken/file).write_bytes(whole)
    assert not list((tmp_path/'x').rglob('a.*'))
