"""Papers against ours: what a paper claims, repeated as a sweep, judged by seeds (docs/claims.md)."""
