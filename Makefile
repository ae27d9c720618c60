# make run | test | nightly | crash | osie | models | families | zoo | planted | prepare | notebooks | docs | lock | clean: each sets up its own virtual environment first, so each works from a fresh clone
PYTHON := $(shell command -v python3.11 2>/dev/null || command -v python3)
BIN    := $(CURDIR)/.venv/bin
READY  := .venv/.ready
OSIE    ?= ../shared/data/osie
COCO    ?= ../shared/data/coco
WEIGHTS ?= ../shared/weights/squeezenet1_0_imagenet.safetensors
UV     := VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv
export PATH := $(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE # every process would compile torch and all else it imports again: 20 CPU seconds each

.PHONY: run osie models families zoo planted test nightly crash prepare notebooks readme docs lock clean

run: $(READY)
	saliency-nb world data/world
	saliency-nb run --data data/world --out runs/world --shuffled true

# the first real result: OSIE eye tracking, which is not part of this repository (data/README.md)
osie: $(READY)
	saliency-nb run --preset photos --data $(OSIE) --out runs/osie --shuffled true
	mkdir -p bench/osie && cd runs/osie && cp summary.json contributions.csv controls.csv people.csv people_agreement.csv units.json ../../bench/osie

# the three published hosts, light, on OSIE, side by side
models: $(READY)
	saliency-nb run --preset tiny --model salicon dinet transalnet --data $(OSIE) --weights $(WEIGHTS) --out runs/models --height 144 --width 192 --features 32 --n-bases 128 \
	  --epochs 5 --lr 0.0003 --lr-every 4 --epochs2 3 --lr2 0.001 --original true
	mkdir -p bench/models && for m in salicon dinet transalnet; do cp runs/models/$$m/summary.json bench/models/$$m.json; done

# two kinds of model, three trainings each, and the document that compares them
families: $(READY)
	saliency-nb run --preset light --seeds 3 --data $(OSIE) --out runs/families/readout
	saliency-nb run --preset tiny --model dinet --seeds 3 --data $(OSIE) --weights $(WEIGHTS) --out runs/families/dinet --height 144 --width 192 --features 32 \
	  --n-bases 128 --epochs 5 --lr 0.0003 --lr-every 4 --epochs2 3 --lr2 0.001
	saliency-nb compare runs/families/readout runs/families/dinet --out runs/families
	python tools/document.py runs/families/compare_models.ipynb nbs/analyses/compare_models.ipynb
	nbdev-clean

# the models that ship, from the runs above: OSIE's also asked about the names of COCO
zoo: run osie
	python tools/join_coco.py $(COCO) runs/coco
	saliency-nb run --preset photos --data $(OSIE) --checkpoint runs/osie/phase2/best.safetensors --probe runs/coco/annotations/panoptic_all.json --out runs/osie_coco
	python tools/zoo.py runs/world world
	python tools/zoo.py runs/osie photos
	python tools/zoo.py runs/osie_coco photos --probe coco

# planted truth: the whole chain on five worlds that nothing was chosen on, with a published host trained end to end, and with the preset `light`;
# CONDITIONS='base,few images,noisy' adds two more sets of worlds
CONDITIONS ?= base
STUDY = papermill nbs/analyses/planted_truth.ipynb --no-progress-bar -k python3 -p worlds 5 -p first 200 -p conditions "$(CONDITIONS)" -p n_observers 30 -p edited 20 -p ceilings 12
planted: $(READY)
	mkdir -p runs/planted/dinet runs/planted/readout
	$(STUDY) runs/planted/dinet.ipynb -p out $(CURDIR)/runs/planted/dinet -p host dinet -p settings light -p weights $(abspath $(WEIGHTS)) \
	  -p n_images 1200 -p height 120 -p width 160
	$(STUDY) runs/planted/readout.ipynb -p out $(CURDIR)/runs/planted/readout -p host readout -p settings light -p n_images 600 -p height 180 -p width 240
	cp runs/planted/dinet/worlds.csv bench/planted_truth.csv
	cp runs/planted/readout/worlds.csv bench/planted_readout.csv

test: $(READY)
	pytest -n 2 --dist worksteal

# calibrations with as many draws as their claims need; the numbers go to bench/nightly.csv
nightly: $(READY)
	NIGHTLY=1 pytest $$(grep -l 'NIGHTLY\|noted(' tests/test_*.py)

# kill runs at random moments, damage results, change inputs, repeat: what happened goes to bench/crash.csv
crash: $(READY)
	OMP_NUM_THREADS=1 python tests/crash.py --log bench/crash.csv

# before a commit: package, notebooks and README in step, then everything tested (the tests check the README too)
prepare: $(READY)
	nbdev-export
	nbdev-clean
	$(MAKE) readme
	$(MAKE) test

# execute every chapter in place, in order, so that the outputs readers see are those of today's code
notebooks: $(READY)
	nbdev-export
	cd nbs && MPLBACKEND=module://matplotlib_inline.backend_inline jupyter nbconvert --log-level WARN --to notebook --execute --inplace \
	  --ExecutePreprocessor.timeout=1200 $(notdir $(sort $(wildcard nbs/*.ipynb)))
	nbdev-clean
	$(MAKE) readme

readme: $(READY)
	python tools/readme.py

docs: .venv/.docs docs/_static/embed-amd.js
	python tools/pages.py
	sphinx-build -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# versions and hashes of runtime and development requirements, one resolution for all platforms; no index address in the file. Without
# rfc3987-syntax, an optional check of addresses that spends 4 CPU seconds at the start of every process that imports Jupyter
lock: $(READY)
	$(UV) pip compile -q --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-package rfc3987-syntax --no-emit-package lark \
	  --generate-hashes --upgrade setup.py --extra dev -o requirements.lock
	python tools/licences.py

# what only the site needs: Sphinx and its theme from PyPI, the widget scripts from npm
.venv/.docs: $(READY)
	$(UV) pip install -q --no-build-isolation -c requirements.lock -e '.[docs]'
	touch $@

docs/_static/embed-amd.js:
	npm install --silent --no-fund --no-audit --no-save --prefix docs requirejs @jupyter-widgets/html-manager
	mkdir -p docs/_static
	cp docs/node_modules/requirejs/require.js docs/node_modules/@jupyter-widgets/html-manager/dist/embed-amd.js docs/_static/

$(READY): requirements.lock setup.py settings.ini pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(UV) pip install -q --no-deps --require-hashes -r requirements.lock
	$(UV) pip install -q --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv build dist *.egg-info docs/_build docs/_static docs/pages docs/node_modules
