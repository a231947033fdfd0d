"""`kvpilot.yaml`: everything a user may set, validated, with the defaults and their reasons.

Pydantic lives here because users' input enters here; `fleet.settings_file` reads the file and words the
mistakes. Every number has a smallest and a largest value: what lies outside would only stop a server later.
`Settings.fleet` gives the frozen topology that the rest of the code works on.
"""

from fleet.settings.admission import (
    AdmissionSettings,
    LevelSettings,
    TenantSettings,
    TenantsSettings,
    TrustSettings,
)
from fleet.settings.endpoint_picker import EndpointPickerSettings
from fleet.settings.models import EmulatedSettings, ModelSettings, PoolSettings, VersionSettings
from fleet.settings.picker import PickerSettings
from fleet.settings.section import Section, Steering, Transport
from fleet.settings.servers import CollectSettings, EnvoySettings, WeightSettings
from fleet.settings.whole import Settings, pool_field

__all__ = [
    "AdmissionSettings",
    "CollectSettings",
    "EmulatedSettings",
    "EndpointPickerSettings",
    "EnvoySettings",
    "LevelSettings",
    "ModelSettings",
    "PickerSettings",
    "PoolSettings",
    "Section",
    "Settings",
    "Steering",
    "TenantSettings",
    "TenantsSettings",
    "Transport",
    "TrustSettings",
    "VersionSettings",
    "WeightSettings",
    "pool_field",
]
