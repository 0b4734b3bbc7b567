"""Features: encoders, extraction, the feature file, and the files of other tools.

Importing this room imports neither torch nor h5py; both are loaded where they are used.
"""

from .encoder import Encoder as Encoder
from .encoder import EncoderInfo as EncoderInfo
from .encoder import get_encoder as get_encoder
from .encoder import list_encoders as list_encoders
from .estimates import Estimate as Estimate
from .estimates import estimate as estimate
from .extraction import ExtractReport as ExtractReport
from .extraction import extract as extract
from .importers import Importable as Importable
from .importers import find_importable as find_importable
from .importers import import_features as import_features
from .layout import FeatureHeader as FeatureHeader
from .layout import kept_precision as kept_precision
from .naming import feature_set_name as feature_set_name
from .precision import in_precision as in_precision
from .reading import Features as Features
from .reading import open_features as open_features
from .reading import read_features as read_features
from .store import FeatureWriter as FeatureWriter
