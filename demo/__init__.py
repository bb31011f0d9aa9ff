"""How the embedded model was made: data, training, evaluation, export. Not part of the installed package; see demo/README.md."""
