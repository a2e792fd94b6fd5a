"""Sessions by the thousand in the simulated internet: random ones, and every pair of NATs.

python -m scenarios random --sessions 10000     `make sim`
python -m scenarios random --seed 4711          one of them again, told in full
python -m scenarios establish                   the ways of establishing a connection, compared
python -m scenarios report                      `make sim-report`: times for every pair of NATs
"""
