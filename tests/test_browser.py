"`saliency-nb explore RUN` in a real JupyterLab in a real Chromium: the notebook runs there, and its widget answers to mouse and keyboard."
import os, secrets, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path
import pytest, xarray as xr
from saliency_nb.stages import Analysis
from saliency_nb.declared import analysis_parameters
from saliency_nb.world import make_world

ROOT, CHROMIUM = Path(__file__).resolve().parent.parent, '/usr/bin/chromium'
playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed (Debian's package chromium)")
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

EXECUTED = "Array.from(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')).every(e => /\\[\\d+\\]/.test(e.innerText))" # every code cell has a number

def name_all_bases(file):
    "So little trained, a network has no name beyond chance; here all count."
    found = xr.load_dataset(file, engine='h5netcdf')
    found.assign(q_value=xr.zeros_like(found.q_value)).to_netcdf(file, engine='h5netcdf')

def keep_cells(settings):
    "In the page, although they are out of view."
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')

@pytest.fixture
def lab(tmp_path):
    "Address of the notebook that `saliency-nb explore` serves, for a small run."
    make_world(tmp_path/'world', n_images=60, size=(96, 128), seed=0)
    Analysis(**analysis_parameters('model') | dict(data=str(tmp_path/'world'), out=tmp_path/'run', features=16, n_bases=16, epochs=2, epochs2=1, accelerator='cpu')).dissection()
    name_all_bases(tmp_path/'run/alignment.nc')
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    token, env = secrets.token_hex(8), os.environ | dict(PYTHONPATH=str(ROOT)) | {f'JUPYTER{k}_DIR': str(tmp_path/k) for k in ('_CONFIG', '_DATA', 'LAB_SETTINGS', 'LAB_WORKSPACES')}
    env.pop('MPLBACKEND', None)
    keep_cells(tmp_path/'LAB_SETTINGS/@jupyterlab/notebook-extension/tracker.jupyterlab-settings')
    server = subprocess.Popen([sys.executable, '-m', 'saliency_nb.cli', 'explore', tmp_path/'run', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', f'--IdentityProvider.token={token}', '--LabApp.news_url=',
                               '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate'], env=env, stdout=open(tmp_path/'lab.log', 'w'), stderr=subprocess.STDOUT, start_new_session=True)
    for _ in range(120):
        try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}'); break
        except OSError: time.sleep(.5)
    yield f'http://127.0.0.1:{port}/lab/tree/explore.ipynb?token={token}&reset'
    os.killpg(server.pid, signal.SIGTERM); server.wait(20)

def picture(page): return page.locator('.widget-image').first.get_attribute('src')

def changed(page, before):
    "Wait until the widget shows another picture."
    page.wait_for_function("s => document.querySelector('.widget-image').src !== s", arg=before, timeout=30_000)
    return picture(page)

def test_explorer_in_jupyterlab(lab, tmp_path):
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page, errors = browser.new_page(viewport=dict(width=1300, height=1100)), []
        page.on('pageerror', lambda e: errors.append(str(e)))
        try: use_explorer(page, lab)
        finally: page.screenshot(path=os.environ.get('SALIENCY_NB_SCREENSHOT', tmp_path/'explorer.png')); browser.close()
    assert not errors, errors

def use_explorer(page, lab):
    "Run the notebook, switch a semantic off, move the slider, choose another image; each must change the picture."
    page.goto(lab)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=90_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
    page.wait_for_selector('.jp-Toolbar-kernelName:has-text("Python of saliency_nb")', timeout=60_000)
    page.wait_for_timeout(3000) # run too early, JupyterLab asks which kernel to use
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    widget = page.locator('.widget-image').first
    widget.wait_for(timeout=120_000)
    page.wait_for_function(EXECUTED, timeout=120_000)
    page.locator('.widget-slider').first.evaluate("e => e.scrollIntoView({block: 'center'})"); page.wait_for_timeout(500)
    first = picture(page)
    page.locator('.widget-select-multiple select').first.select_option(index=1)
    second = changed(page, first)
    handle, track = page.locator('.widget-slider .noUi-handle').first.bounding_box(), page.locator('.widget-slider .noUi-target').first.bounding_box()
    page.mouse.move(handle['x'] + handle['width'] / 2, handle['y'] + handle['height'] / 2); page.mouse.down()
    page.mouse.move(track['x'] + track['width'] * .2, handle['y'] + handle['height'] / 2, steps=8); page.mouse.up()
    third = changed(page, second)
    page.locator('.widget-dropdown select').first.select_option(index=2)
    changed(page, third)
    assert 'bases switched off' in page.locator('.widget-html').first.inner_text()
