"""The crash campaign: runs are killed at random moments, one result is damaged, one input is changed, the command is repeated.

It has to end with the tables and weights of an undisturbed run of the same inputs, and to make nothing again that depends on
neither the change nor the damage; where a trained model is at stake, it has to stop with its sentence first. `make crash`
does it thirty times and writes bench/crash.csv, `test_crash.py` five times. Most victims are forked from a process that has
imported everything, since imports take longer than these runs; the others are real commands, of one and of two processes."""
import argparse, json, os, random, shutil, signal, subprocess, sys, tempfile, time, traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
import cv2, pandas as pd, torch, xarray as xr
from safetensors.torch import load_file
from saliency_nb.core import SaliencyError
from saliency_nb.hosts import classifier
from saliency_nb.runs import Analysis
from saliency_nb.weights import write_tensors
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
OTHER = '/dev/shm' # another file system
TINY = dict(height=64, width=96, features=4, n_bases=4, epochs=2, epochs2=2, batch=4, every=1, min_images=1, top=2)
TINY |= dict(accelerator='cpu', lr=1e-3, quantile=.8)
STAGES = ['models', 'scores', 'calibration', 'thresholds', 'dissection', 'contributions', 'controls', 'people', 'maps']
TRAINED = {'phase1', 'phase2', 'original', 'controls/shuffled'}
NAMED = {'dissection', 'units', 'contributions', 'people', 'controls/untrained.nc', 'controls/shuffled.nc'}
EVERYTHING = TRAINED | NAMED | {'scores', 'calibration', 'thresholds', 'maps'}
PRIVATE = {'run.json', 'predict.json', 'training.json', 'summary.json', '.lock'} # no results
TABLES = {'.csv', '.json', '.nc', '.png', '.safetensors'}


# Inputs, and the stages that depend on them

def recoloured(path): cv2.imwrite(str(path), 255 - cv2.imread(str(path)))

def train_image(place): recoloured(min((place/'world/images/train').iterdir()))

def scored_image(place): recoloured(min((place/'world/images/val').iterdir()))

def annotation(place):
    "A thing in a scored image is another thing."
    file = place/'world/scene_graphs.json'
    graphs = json.loads(file.read_text())
    first, second = sorted(f.stem for f in (place/'world/images/val').iterdir())[:2]
    graphs[second]['objects']['0']['name'] = graphs[first]['objects']['2']['name']
    file.write_text(json.dumps(graphs))

def weights(place, seed=1):
    "A backbone."
    torch.manual_seed(seed)
    write_tensors(classifier('squeezenet1_0', None).state_dict(), place/'weights.safetensors')

CHANGES = { # name -> what is done to the inputs, options, stages that depend on it
    'nothing': (None, {}, set()),
    'scored image': (scored_image, {}, {'scores', 'maps'} | NAMED),
    'annotation': (annotation, {}, NAMED),
    'quantile': (None, dict(quantile=.7), {'thresholds'} | NAMED - {'people'}),
    'top': (None, dict(top=1), {'contributions'}),
    'train image': (train_image, {}, EVERYTHING),
    'weights': (weights, {}, EVERYTHING),
    'lr': (None, dict(lr=2e-3), EVERYTHING),
}


# Commands, in processes that can be killed

class Forked:
    "The stages of a run, in a process that has imported everything."
    def __init__(self, place, options, tmpdir):
        self.log, self.returncode = place/'log', None
        self.pid = os.fork()
        if not self.pid: self.live(options, tmpdir)

    def live(self, options, tmpdir):
        tempfile.tempdir, code = tmpdir, 1
        with open(self.log, 'w', buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            try:
                every_stage(options)
                code = 0
            except SaliencyError as e: print(f'saliency-nb: {e}')
            except BaseException: traceback.print_exc()
        os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

def every_stage(options):
    analysis = Analysis(**options)
    for stage in STAGES + ['units'] * analysis.p.original: getattr(analysis, stage)()

def started(kind, place, options, tmpdir):
    "A command of this kind in a process of its own, which writes to `log`."
    options = TINY | dict(data=place/'world', weights=place/'weights.safetensors', out=place/'run') | options
    if kind == 'forked': return Forked(place, options, tmpdir)
    flags = ['--retrain'] if options.pop('retrain', False) else []
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    name = dict(run=['run', '--model', 'dinet'], two=['train', '--model', 'dinet', '--devices', '2'])[kind]
    env = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1', TMPDIR=tmpdir or tempfile.gettempdir())
    with open(place/'log', 'w') as file:
        line = [sys.executable, '-m', 'saliency_nb.cli', *name, *words, *flags]
        return subprocess.Popen(line, env=env, stdout=file, stderr=file)

def ended(process, seconds):
    "Whether a process ends in time."
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until: time.sleep(.005)
    return process.poll() is not None

def killed(process, moment, place):
    "Kill a process, and wait until those that it has started notice."
    over = ended(process, moment)
    if not over: os.kill(process.pid, signal.SIGKILL)
    ended(process, 10)
    until = time.monotonic() + 30
    while any(str(place) in line for line in command_lines()) or is_locked(place/'run'):
        assert time.monotonic() < until, f'a process of {place} has outlived its parent'
        time.sleep(.1)
    return 'after its end' if over else (place/'log').read_text().strip().split('\n')[-1]

def command_lines():
    "Of all processes but this one."
    for file in Path('/proc').glob('[0-9]*/cmdline'):
        try: yield file.read_bytes().decode(errors='replace') if file.parent.name != str(os.getpid()) else ''
        except OSError: pass # it has ended

def is_locked(run):
    "Whether a process holds the lock of a run, as /proc/locks tells."
    if not (run/'.lock').exists(): return False
    return any(line.split()[5].endswith(f":{(run/'.lock').stat().st_ino}") for line in open('/proc/locks'))

def finished(kind, place, options, tmpdir=None):
    "Repeat a command until it is done; as often as its sentences tell what to do. What was said, the sentences."
    sentences = []
    for _ in range(4):
        process = started(kind, place, options, tmpdir)
        assert ended(process, 300), f'{place}: does not end'
        said = (place/'log').read_text()
        if process.poll() == 0: return said, sentences
        last = said.strip().split('\n')[-1]
        assert 'Traceback' not in said and last.startswith('saliency-nb: '), said
        sentences.append(last)
        if 'remove this file' in last: (place/'run/run.json').unlink()
        elif '--retrain' in last: options = options | dict(retrain=True)
        else: raise AssertionError(said)
    raise AssertionError(sentences)


# One trial

def results(run):
    "Files that a run has written."
    files = [f for f in sorted(run.rglob('*')) if f.is_file() and f.name != '.lock']
    return [f for f in files if 'tensorboard' not in f.parts and '.ipynb' not in f.suffixes]

def damaged(run, draw):
    "Damage one file; its name and how."
    files = results(run)
    if not files: return '', ''
    file, how = draw.choice(files), draw.choice(['truncated', 'emptied', 'deleted', 'flipped', 'braces'])
    whole = file.read_bytes()
    at = draw.randrange(len(whole)) if whole else 0
    changed = dict(truncated=whole[:len(whole) // 2], emptied=b'', braces=b'{}', deleted=None)
    changed['flipped'] = whole[:at] + bytes(b ^ 255 for b in whole[at:at + 3]) + whole[at + 3:]
    if how == 'deleted': file.unlink()
    else: file.write_bytes(changed[how])
    return str(file.relative_to(run)), how

def known_stages(run):
    "Finished stages, with their files."
    try: stages = json.loads((run/'run.json').read_text())['stages']
    except (OSError, ValueError): return {}
    return {name: list(s['contents']) for name, s in stages.items() if 'made' in s}

def differences(run, reference):
    "Results that are not those of an undisturbed run."
    def kept(folder): return {f.relative_to(folder) for f in results(folder) if f.suffix in TABLES and f.name not in PRIVATE}
    other = kept(run) ^ kept(reference)
    return sorted(map(str, other)) + [str(f) for f in kept(run) & kept(reference) if not same(run/f, reference/f)]

def same(one, two):
    "Whether two results are equal, number for number."
    if one.read_bytes() == two.read_bytes(): return True
    if one.suffix == '.nc': return xr.load_dataset(one).equals(xr.load_dataset(two))
    if one.suffix != '.safetensors': return False
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)

def must_stop(run, file, stages, change):
    "Whether a trained model is at stake."
    trained = {name for name in stages if name in TRAINED}
    own = any(file in files for name, files in stages.items() if name in trained)
    begun = [f for f in run.rglob('last.ckpt') if f.stat().st_size >= 0]
    return own or CHANGES[change][2] == EVERYTHING and bool(trained or begun)

def again(said, stages, file, change):
    "Stages that were made again, but depend on nothing that was changed or damaged."
    def of(name): return any(file == f or file.startswith(f'{f}/') for f in stages[name])
    fresh = [name for name in stages if name not in CHANGES[change][2] and not of(name)]
    return [name for name in fresh if f'\n{name}: unchanged' not in f'\n{said}']

class Campaign:
    "Trials in one folder, with the undisturbed runs they are compared with."
    def __init__(self, folder, seed, short):
        self.folder, self.draw, self.references, self.seconds = folder, random.Random(seed), {}, {}
        self.options = dict(control=True) if short else dict(original=True, shuffled=True)
        self.stages = ['scored image', 'top', 'nothing', 'weights'] if short else list(CHANGES)

    def place(self, name, change='nothing'):
        "A folder with inputs of its own."
        place = self.folder/name
        make_world(place/'world', n_images=20, size=(64, 96), seed=0)
        weights(place, seed=0)
        return self.changed(place, change)

    def changed(self, place, change):
        if CHANGES[change][0]: CHANGES[change][0](place)
        return place

    def reference(self, kind, change):
        "The run folder of an undisturbed run."
        key = 'two' if kind == 'two' else 'one', change
        if key not in self.references:
            place, start = self.place('_'.join(key).replace(' ', '_'), change), time.monotonic()
            _, sentences = finished('two' if kind == 'two' else 'forked', place, self.asked(kind, change))
            assert not sentences, sentences
            self.references[key], self.seconds[key[0]] = place/'run', time.monotonic() - start
        return self.references[key]

    def asked(self, kind, change):
        return ({} if kind == 'two' else self.options) | CHANGES[change][1]

    def trial(self, number, kind, share, tmpdir):
        "Kill, damage, change, repeat; what happened."
        self.reference(kind, 'nothing')
        change = self.draw.choice(self.stages)
        reference, place = self.reference(kind, change), self.place(f'trial_{number}')
        moment = share * self.seconds['two' if kind == 'two' else 'one'] + dict(forked=0, two=3, run=12)[kind]
        at = killed(started(kind, place, self.asked(kind, 'nothing'), tmpdir), moment, place)
        stages, run = known_stages(place/'run'), place/'run'
        file, how = damaged(run, self.draw) if run.exists() else ('', '')
        stop = must_stop(run, file, stages, change)
        self.changed(place, change)
        said, sentences = finished(kind, place, self.asked(kind, change), tmpdir)
        found = self.faults(run, reference, bool(sentences) != stop and file != 'run.json', sentences)
        if file != 'run.json': found += [f'made again: {name}' for name in again(said, stages, file, change)]
        row = dict(trial=number, process=kind, tmpdir=tmpdir or '', moment=round(moment, 2), killed_at=at)
        row |= dict(finished=len(stages), file=file, damage=how, change=change)
        shutil.rmtree(place) if not found else None
        return row | dict(stopped=' / '.join(sentences).replace(str(self.folder), ''), faults=', '.join(found))

    def faults(self, run, reference, unexpected, sentences):
        "What is not as it should be, after all."
        found = [f'differs: {f}' for f in differences(run, reference)]
        found += [f'left: {f.name}' for f in [*run.rglob('.*.part*'), *run.glob('partial')]]
        return found + [f'stopped: {sentences}'] * unexpected

def campaign(trials, seed, folder, short=False):
    "All trials, as a table."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    every, rows = Campaign(Path(folder), seed, short), []
    for n in range(trials):
        kind = 'forked' if short else {9: 'two', 19: 'two', 29: 'two', 14: 'run', 24: 'run'}.get(n, 'forked')
        share = (n + every.draw.random()) / trials if kind == 'forked' else every.draw.random()
        rows.append(every.trial(n, kind, share, OTHER if n % 2 and os.path.isdir(OTHER) else None))
        print({k: v for k, v in rows[-1].items() if v != ''}, flush=True)
    return pd.DataFrame(rows)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--trials', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--log', help='.csv for what happened')
    parser.add_argument('--short', action='store_true', help='smaller runs, without real commands')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder: table = campaign(args.trials, args.seed, folder, args.short)
    if args.log: table.assign(seed=args.seed).to_csv(args.log, index=False)
    sys.exit(int((table.faults != '').any()))
