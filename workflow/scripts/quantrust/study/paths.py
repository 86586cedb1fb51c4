"""Names and paths of what a study writes, as patterns with Snakemake's wildcards."""

EMBEDDED_DATASET = "data/embedded/{dataset}"
DIVISION = "data/splits/{dataset}.parquet"
QUESTIONS = "data/questions/{dataset}.parquet"
SKIPPED = "data/skipped/{dataset}.parquet"
QUESTION_GROUPS = "data/question_groups/{dataset}.parquet"
MIXTURES = "data/mixtures/{dataset}.parquet"

MODEL = "data/models/{model}"
TRAINED = "data/trained/{model}"
CHECKED = "data/checked/{model}/{dataset}.parquet"
CALIBRATION = "data/calibration/{model}.parquet"

CHECKPOINT = "data/checkpoints/{model}/{scheme}"
FEATURES = "data/features/{model}/{scheme}/{dataset}.parquet"
# Where they wait for their own job if another one has made them, and what a run makes.
MADE_CHECKPOINT = "data/made_checkpoints/{model}/{scheme}"
MADE_FEATURES = "data/made_features/{model}/{scheme}/{dataset}"
ASKED = "data/asked.txt"
SHARD = "data/shards/{model}/{scheme}/{dataset}/{shard}-of-{shards}.parquet"
# Of a variant that is a cell of a grid: its checkpoint's record, and where it waits for its own job once it is made.
CELL = "data/cells/{model}/{scheme}.json"
MADE_CELL = "data/made_cells/{model}/{scheme}"
SELECTOR = "data/selectors/{model}/{scheme}"
SCORES = "data/scores/{model}/{scheme}.parquet"
METRICS = "data/metrics/{model}/{scheme}.parquet"
CURVES = "data/curves/{model}/{scheme}.parquet"
GROUPS = "data/groups/{model}/{scheme}.parquet"
BINS = "data/bins/{model}/{scheme}.parquet"
CERTIFICATION = "data/certification/{model}/{scheme}.parquet"
DECISIONS = "data/decisions/{model}/{scheme}.parquet"
OPERATING_POINTS = "data/operating_points/{model}/{scheme}.json"
BUNDLE = "data/bundles/{model}/{scheme}"

# What is computed of the ID dataset alone, before the shifts are added.
ID_SCORES = "data/in_distribution/scores/{model}/{scheme}.parquet"
ID_METRICS = "data/in_distribution/metrics/{model}/{scheme}.parquet"
ID_CURVES = "data/in_distribution/curves/{model}/{scheme}.parquet"
ID_GROUPS = "data/in_distribution/groups/{model}/{scheme}.parquet"
ID_BINS = "data/in_distribution/bins/{model}/{scheme}.parquet"

# Of Selectors that are trained on so many dev questions.
LABELS_SELECTOR = "data/learning/selectors/{model}/{scheme}/{labels}"
LABELS_SCORES = "data/learning/scores/{model}/{scheme}/{labels}.parquet"
LEARNING_CURVE = "data/learning/curves/{model}/{scheme}.parquet"

# What is computed of all variants together. Two studies with folders of their own for reports do not undo each other.
RESAMPLED = "data/studies/{reports}/resampled/{model}/{scheme}.parquet"
COMPARISONS = "data/studies/{reports}/comparisons.parquet"
SHIPPING = "data/studies/{reports}/shipping.parquet"
FAIRNESS = "data/studies/{reports}/fairness.parquet"
GRID = "data/studies/{reports}/grid.parquet"
IMPORTANCE = "data/studies/{reports}/importance.parquet"
INTERACTIONS = "data/studies/{reports}/interactions.parquet"
EFFECTS = "data/studies/{reports}/effects.parquet"
DRIFT = "data/studies/{reports}/drift.parquet"
EXAMPLES = "data/studies/{reports}/examples.parquet"
PAGE = "{reports}/index.html"

DOWNLOAD = "data/downloads/{download}.json"
