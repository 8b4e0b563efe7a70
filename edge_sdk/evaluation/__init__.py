"""How right a tagger is on a labelled data set, whatever form it has and wherever it runs."""
