#!/bin/sh
# The tables of docs/results.md, its figure, and the numbers behind them, of the sweeps in runs/quality (docs/results.md
# says how these are made; of those that are not there, nothing changes). Usage: benchmarks/quality/report.sh [FOLDER]
set -e
cd "$(dirname "$0")/../.."
runs=${1:-runs/quality} page=docs/results.md numbers=docs/results/quality
steps=steps=25%,50%,100% times=seconds=204,372,1064,done targets=+0.4,+0.3,+0.2,+0.1
mkdir -p $numbers

compare() {  # PART PLACE OPTION …
    part=$1 place=$2
    shift 2
    python -m halos.compare "$runs/$part" --markdown "$page#$place" "$@"
}

compare main tokens --baseline DiLoCo --at $steps --tables losses,differences
compare main time --baseline DiLoCo --at $times --tables losses
compare main targets --baseline DiLoCo --target-loss $targets --tables targets
compare main work --baseline DiLoCo --at $steps --at $times --target-loss $targets --tables cost,work,staleness \
    --csv $numbers/main.csv --figures "$runs/figures"
cp "$runs/figures/loss-above-baseline.png" $numbers
[ ! -d "$runs/two_workers" ] || compare two_workers two_workers --baseline 'DiLoCo, 0.4' --at $steps --tables losses,differences \
    --csv $numbers/two_workers.csv
for part in no_momentum tuning tuning_later; do  # of many runs only the losses are kept
    [ -d "$runs/$part" ] || continue
    compare $part $part --at steps=100% --tables losses --csv "$runs/$part.csv"
    grep -E '^group,|,(final_loss|loss@steps=[0-9]+),' "$runs/$part.csv" > $numbers/$part.csv
done
