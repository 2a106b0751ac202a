"""What serving imports and never uses: not there after a start, the real thing for whoever asks."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = """
import sys
from serving import postponed
postponed.import_libraries()
assert set(postponed.LIBRARIES) <= sys.modules.keys()
import serving.app, serving.model
assert not postponed.POSTPONED.keys() & sys.modules.keys(), postponed.POSTPONED.keys() & sys.modules.keys()
"""


def run(code: str, before: str = "") -> str:
    with tempfile.TemporaryDirectory() as scratch:  # a client of BentoML's leaves a folder behind
        done = subprocess.run(
            [sys.executable, "-c", before + START + code], cwd=ROOT, env=os.environ | {"TMPDIR": scratch},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "use",
    [
        "from sklearn.metrics import label_ranking_average_precision_score as s; assert s([[1, 0]], [[1, 0]]) == 1",
        "from sklearn.metrics import _ranking; assert list(_ranking.rankdata([3, 1, 2])) == [3, 1, 2]",
        "from sklearn._loss import link; assert abs(link.gmean([1, 100]) - 10) < 1e-9",
        "from sklearn.covariance import MinCovDet; MinCovDet(random_state=0).fit([[i, i * i % 7] for i in range(30)])",
        "from sklearn.isotonic import check_increasing; assert check_increasing([1, 2, 3], [1, 2, 3])",
        "from sklearn.preprocessing import PowerTransformer; PowerTransformer().fit_transform([[1.0], [2.0], [3.0]])",
        "from sklearn.metrics import auc; assert auc([0, 1], [0, 1]) == 0.5",
        "from sklearn.preprocessing import SplineTransformer as s; s().fit_transform([[i] for i in range(9)])",
        "from sklearn.isotonic import IsotonicRegression as r; r().fit([1, 2, 3], [1, 3, 2]).predict([1.5])",
        "from sklearn.linear_model import LassoLarsCV as r; r(cv=2).fit([[i, i * i % 7] for i in range(9)], range(9))",
        "from sklearn.linear_model import LogisticRegression as r; r().fit([[0], [1], [2]], [0, 1, 1])",
        "from sklearn.linear_model import LogisticRegression as r; r(solver='newton-cg').fit([[0], [1]], [0, 1])",
        "from sklearn.linear_model import QuantileRegressor; QuantileRegressor().fit([[0], [1], [2]], [0, 1, 1])",
        "from sklearn.metrics.cluster import _bicluster as b; assert len(b.linear_sum_assignment([[1, 2]])) == 2",
        "from sklearn.calibration import minimize; assert abs(minimize(lambda x: x[0] ** 2, [1]).x[0]) < 1e-3",
        "import sklearn.gaussian_process._gpr as g; assert g.scipy.optimize.brentq(lambda x: x - 1, 0, 3) > 0.99",
        "from sklearn.impute import SimpleImputer; SimpleImputer(strategy='most_frequent').fit([[1.0], [1.0], [2.0]])",
    ],
)
def test_scikit_learn_gets_what_it_calls(use: str) -> None:
    assert run(f"{use}\nprint('done')") == "done\n"


def test_a_projects_code_gets_the_real_modules() -> None:
    said = run("""
from scipy.stats import chi2, mstats, norm, rv_continuous
import scipy.stats.qmc
import httpx
from sklearn.covariance import _robust_covariance
from sklearn.utils import fixes
assert isinstance(chi2, rv_continuous) and isinstance(norm, rv_continuous)
assert isinstance(httpx.Client, type)
assert fixes.scipy.stats is scipy.stats is sys.modules["scipy.stats"]
assert _robust_covariance.chi2.ppf(0.5, 2) == chi2.ppf(0.5, 2)
print('done')
""")
    assert said == "done\n"


def test_a_part_that_its_package_has_imported_is_there_for_who_asks_the_package() -> None:
    said = run("""
import scipy.spatial
assert scipy.spatial.transform.Rotation.identity().as_quat().tolist() == [0, 0, 0, 1]
assert scipy.spatial.transform is sys.modules["scipy.spatial.transform"]
import scipy
assert scipy.integrate.quad(lambda x: x, 0, 2)[0] == 2
from scipy.interpolate import BSpline, interp1d
from scipy.optimize import OptimizeResult, minimize
assert issubclass(OptimizeResult, dict) and minimize.__module__ == "scipy.optimize._minimize"
assert isinstance(BSpline, type) and interp1d([0, 1], [0, 2])(0.5) == 1
print('done')
""")
    assert said == "done\n"


def test_a_websocket_gets_its_protocol() -> None:
    without_websockets = "import sys; sys.modules['websockets'] = None"  # as in a runtime of our own lock
    said = run(
        """
from uvicorn.config import WS_PROTOCOLS, Config
from uvicorn.importer import import_from_string
protocol = import_from_string(WS_PROTOCOLS["auto"])
assert "wsproto" not in sys.modules
try:
    protocol()
except TypeError as error:
    assert "WSProtocol.__init__() missing" in str(error), error
import wsproto
assert wsproto.WSConnection
print('done')
""",
        before=without_websockets,
    )
    assert said == "done\n"


def test_numpy_is_whole_for_whoever_asks() -> None:
    said = run("""
import numpy as np
assert not {"testing", "f2py"} & vars(np).keys()
from sklearn.externals.array_api_compat import numpy as copied
copied.testing.assert_allclose(1, 1)
np.testing.assert_array_equal([1], [1])
import numpy.f2py, numpy.testing
assert numpy.testing is np.testing is sys.modules["numpy.testing"]
assert copied.f2py.get_include() == np.f2py.get_include()
print('done')
""")
    assert said == "done\n"


def test_what_bentoml_only_names_is_there_when_it_is_used() -> None:
    said = run("""
import bentoml
from _bentoml_impl.server import serve_http
from _bentoml_sdk.models import base
from bentoml._internal.cloud.client import RestApiClient
assert base.LabelItemSchema(key="a", value="b").key == "a"
assert isinstance(RestApiClient, type)
try:
    serve_http()
except TypeError as error:
    assert "serve_http() missing" in str(error)
from _bentoml_impl.server import proxy
import httpx
assert proxy.httpx is httpx
class Own(bentoml._internal.cloud.client.RestApiClient): pass
assert issubclass(Own, RestApiClient)
try:
    bentoml.SyncHTTPClient("http://127.0.0.1:1", server_ready_timeout=0.1)
except bentoml.exceptions.ServiceUnavailable:
    print('done')
""")
    assert said == "done\n"


def test_a_stand_in_as_a_base_class_is_the_real_one(tmp_path: Path) -> None:
    library = "from httpx import Client\nclass Own(Client): pass"
    assert _imported(tmp_path, library, "issubclass(Own, __import__('httpx').Client)") == "True\n"


@pytest.mark.parametrize(
    ("library", "use"),
    [
        ("from scipy.stats.mstats import mquantiles", "mquantiles([1, 2, 3]).tolist() == [1.2, 2.0, 2.8]"),
        ("from httpx import Client\ndef ask(by: Client | None = None): return by", "ask() is None"),
    ],
)
def test_a_library_that_cannot_be_imported_this_way_is_imported_the_usual_way(
    tmp_path: Path, library: str, use: str
) -> None:
    assert _imported(tmp_path, library, use) == "True\n"


def _imported(folder: Path, library: str, use: str) -> str:
    """What `use` is after a start whose only library is this one."""
    (folder / "library.py").write_text(library)
    return run(f"""
for loaded in [name for name in sys.modules if name.startswith(("scipy.stats", "httpx"))]:
    del sys.modules[loaded]
sys.path.append({str(folder)!r})
postponed.LIBRARIES = ("library",)
postponed.import_libraries()
from library import *
print({use})
""")
