"""Random image transforms: drawn once, one matrix for the geometry, one pass over the pixels."""

from keras_norm_layers.transforms.augment import Augment as Augment
from keras_norm_layers.transforms.color import RandomBrightness as RandomBrightness
from keras_norm_layers.transforms.color import RandomChannelShift as RandomChannelShift
from keras_norm_layers.transforms.color import RandomContrast as RandomContrast
from keras_norm_layers.transforms.geometric import RandomFlip as RandomFlip
from keras_norm_layers.transforms.geometric import RandomRotation as RandomRotation
from keras_norm_layers.transforms.geometric import RandomShear as RandomShear
from keras_norm_layers.transforms.geometric import RandomTranslation as RandomTranslation
from keras_norm_layers.transforms.geometric import RandomZoom as RandomZoom
