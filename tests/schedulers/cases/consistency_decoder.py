from tests.schedulers.cases import Case

NAME = "ConsistencyDecoderScheduler"
CASES = [Case(NAME, {}, 2), Case(NAME, {"sigma_data": 1.5}, 2)]
