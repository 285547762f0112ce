"""Token files of others: Megatron, datatrove, NumPy and OLMo, Parquet; written from ours, made into ours."""
