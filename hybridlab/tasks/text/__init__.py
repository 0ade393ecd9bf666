"""Language modelling on documents: corpora, tokenisers, windows."""
