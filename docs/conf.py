"Sphinx site built from the executed notebooks; `make docs` writes docs/pages first (tools/pages.py)."
from configparser import ConfigParser
from pathlib import Path

settings = ConfigParser(delimiters=['='])
settings.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')

project, version = settings['DEFAULT']['lib_name'], settings['DEFAULT']['version']
author = settings['DEFAULT']['author']
extensions = ['myst_nb', 'sphinx-mathjax-offline']
exclude_patterns = ['_build', 'node_modules', 'promises.md', 'licences.md']
html_theme, html_title = 'furo', project
html_static_path = ['_static']
nb_execution_mode = 'off'
nb_ipywidgets_js = {'require.js': {}, 'embed-amd.js': {}}
myst_enable_extensions = ['dollarmath', 'amsmath', 'attrs_inline', 'colon_fence']
myst_heading_anchors = 3
