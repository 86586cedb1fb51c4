"""What `bench_growth.py` measures: a made-up study of any size, its stages, and Snakemake's part."""
